//! The tokio runtime of the caller, and how to spawn on it.

use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::runtime::Handle;

/// Lets other workers of a multi-thread runtime take the task that was spawned last. Tokio keeps that
/// one in a slot of the worker which spawned it, where nobody else can take it. If the caller then
/// blocks its worker, the task would not even start. A further task pushes it out of that slot.
pub(crate) fn let_others_take_the_last_task(runtime: &Handle) {
    drop(runtime.spawn(std::future::ready(())));
}

/// The runtime of the caller.
pub(crate) fn current_runtime(operation: Operation) -> Result<Handle> {
    Handle::try_current().map_err(|source| {
        Error::new(ErrorCode::InvalidArgument, operation)
            .with_message("called outside a tokio runtime: call it from a task of one")
            .with_source(source)
    })
}

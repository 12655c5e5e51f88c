//! The runtime of a blocking lock manager, on a thread of its own.

use std::future::Future;
use std::thread;

use syncguard_core::{Backend, Error, ErrorCode, Operation, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::{LockManager, LockManagerBuilder};

/// An async lock manager, and the runtime on which its backend lives.
///
/// A single thread drives the runtime. Callers poll their own futures on their own threads, so the
/// only tasks on it are renewals, background releases and those of the driver, and no caller can
/// block them. The runtime also ends on that thread, because tokio panics if a runtime is dropped
/// inside another one.
#[derive(Debug)]
pub(super) struct Driven {
    locks: LockManager,
    runtime: Handle,
    /// Ends the thread, after it has finished the background work of the manager.
    end: Option<oneshot::Sender<LockManager>>,
}

impl Driven {
    pub(super) fn connect<B: Backend>(
        connect: impl Future<Output = Result<B>>,
        options: impl FnOnce(LockManagerBuilder) -> LockManagerBuilder,
    ) -> Result<Self> {
        refuse_inside_a_runtime(Operation::Configure)?;
        let (runtime, end) = start()?;
        let locks = runtime.block_on(async {
            let builder = LockManager::builder(connect.await?);
            // Inside the runtime, so that the manager knows it.
            Ok::<_, Error>(options(builder).build())
        })?;
        Ok(Self { locks, runtime, end: Some(end) })
    }

    pub(super) const fn locks(&self) -> &LockManager {
        &self.locks
    }

    /// Blocks the calling thread until the future ends.
    pub(super) fn block_on<T>(
        &self,
        operation: Operation,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        refuse_inside_a_runtime(operation)?;
        self.runtime.block_on(future)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // It fails only if the thread is gone, and then nothing can be finished.
            let _ = end.send(self.locks.clone());
        }
    }
}

fn start() -> Result<(Handle, oneshot::Sender<LockManager>)> {
    let failed = |source| {
        Error::new(ErrorCode::Internal, Operation::Configure)
            .with_message("the thread for background work did not start")
            .with_source(source)
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    let drive = move || drive(runtime, ended);
    thread::Builder::new().name("syncguard".to_owned()).spawn(drive).map_err(failed)?;
    Ok((handle, end))
}

fn drive(runtime: Runtime, ended: oneshot::Receiver<LockManager>) {
    runtime.block_on(async {
        // An error means that the backend did not connect, so there is nothing to finish.
        if let Ok(locks) = ended.await {
            // A release that is not done by then is reported when its task is dropped.
            let _ = locks.shutdown().await;
        }
    });
    // A lookup of a host name may still block a thread. Nobody needs its answer.
    runtime.shutdown_background();
}

/// Tokio panics if a thread blocks while it polls tasks. What else it would allow, such as
/// `spawn_blocking`, cannot be told apart from that without a panic.
fn refuse_inside_a_runtime(operation: Operation) -> Result<()> {
    match Handle::try_current() {
        Err(none) if none.is_missing_context() => Ok(()),
        _ => Err(Error::new(ErrorCode::InvalidArgument, operation).with_message(
            "a blocking call inside a tokio runtime: use the async LockManager there, with \
             Handle::block_on from code that is not async",
        )),
    }
}

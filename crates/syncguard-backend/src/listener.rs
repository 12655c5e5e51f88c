//! The background task that receives notifications, and its lifetime.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::stealable::spawn_stealable;

/// Runs the task that receives notifications over a connection of its own and wakes the waiters in
/// a [`NotificationRegistry`](crate::NotificationRegistry). Dropping this aborts the task.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use syncguard_backend::{ListenerTask, NotificationRegistry};
///
/// let (registry, task) = (NotificationRegistry::new(), ListenerTask::new());
/// let notified = registry.register("key");
/// let listener = registry.clone();
/// task.ensure_running(|| async move {
///     for name in listener.changes().await {
///         // A real listener subscribes to `name` first.
///         listener.wake(&name);
///     }
/// });
/// notified.await;
/// # }
/// ```
#[derive(Debug, Default)]
pub struct ListenerTask(Mutex<Option<AbortHandle>>);

impl ListenerTask {
    /// Creates a handle without a running task.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Starts the task on the current runtime unless it already runs.
    ///
    /// A task that ended, for example because its runtime was shut down, is started again. Outside
    /// a runtime this does nothing. A runtime that exists but is not driven is not noticed: until it is,
    /// nobody receives notifications, and waiters try by timer.
    pub fn ensure_running<F>(&self, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A panic in `task` leaves the old value in place, so a poisoned mutex is safe to use.
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(AbortHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            *running = Some(spawn_stealable(&runtime, task()).abort_handle());
        }
    }
}

impl Drop for ListenerTask {
    fn drop(&mut self) {
        if let Some(running) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            running.abort();
        }
    }
}

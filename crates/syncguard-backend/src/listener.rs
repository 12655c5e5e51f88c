//! The task that hears of releases, for backends that push notifications.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The task that hears of releases through a connection of its own and wakes
/// [`NotificationRegistry`](crate::NotificationRegistry). It ends when this is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use syncguard_backend::{ListenerTask, NotificationRegistry};
///
/// let (interests, task) = (NotificationRegistry::new(), ListenerTask::new());
/// let notification = interests.register("key");
/// let hear = interests.clone();
/// task.ensure_running(|| async move {
///     for name in hear.changes().await {
///         hear.wake(&name); // once it is subscribed to
///     }
/// });
/// notification.await;
/// # }
/// ```
#[derive(Debug, Default)]
pub struct ListenerTask(Mutex<Option<AbortHandle>>);

impl ListenerTask {
    /// Nothing runs yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Starts the task on the present runtime, if it does not run: also when it has ended with the
    /// runtime that it was started on. Outside a runtime nothing is started.
    pub fn ensure_running<F>(&self, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Nothing in here can panic halfway.
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.as_ref().is_none_or(AbortHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            *running = Some(runtime.spawn(task()).abort_handle());
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

//! Tasks that do not depend on what their caller does next.

use std::future::{Future, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Spawns a task that any worker of the runtime can take at once.
///
/// Tokio keeps the task that was spawned last in a slot of the worker which spawned it, where no other
/// worker can take it. If the caller then blocks its worker, that task does not even start, and whoever
/// relies on it waits. So an empty task follows, which pushes it out of the slot.
///
/// Dropping the handle leaves the task running. If the runtime is gone, the task is dropped at once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use syncguard_backend::spawn_stealable;
/// use tokio::runtime::Handle;
///
/// let answer = spawn_stealable(&Handle::current(), async { 42 });
/// assert_eq!(answer.await.unwrap(), 42);
/// # }
/// ```
pub fn spawn_stealable<F>(runtime: &Handle, task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let spawned = runtime.spawn(task);
    drop(runtime.spawn(ready(())));
    spawned
}

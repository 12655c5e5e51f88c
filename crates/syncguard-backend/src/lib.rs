//! Tools for authors of SyncGuard backends.
//!
//! A backend needs only the trait `Backend` of `syncguard-core`. If its store can notify clients of
//! a release, it also needs the parts below. They are the same for every store:
//!
//! | | |
//! |---|---|
//! | [`NotificationRegistry`] | records which names this process waits for, and wakes their waiters |
//! | [`Notified`] | one waiter's registration; resolves when the waiter is woken |
//! | [`ListenerTask`] | the task that receives notifications over a connection of its own |
//! | [`ReconnectBackoff`] | the pauses between failed sessions, and when to log a warning |

mod listener;
mod reconnect;
mod registry;

pub use listener::ListenerTask;
pub use reconnect::ReconnectBackoff;
pub use registry::{NotificationRegistry, Notified};

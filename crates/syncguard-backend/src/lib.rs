//! Tools for authors of SyncGuard backends.
//!
//! A backend needs only the trait `Backend` of `syncguard-core`. The parts below help with the rest.
//! They are the same for every store:
//!
//! | | |
//! |---|---|
//! | [`Combiner`], [`Requests`], [`TimeLimits`] | group commit: operations that arrive while a request is under way share the next one |
//! | [`NotificationRegistry`] | records which names this process waits for, and wakes their waiters |
//! | [`Notified`] | one waiter's registration; resolves when the waiter is woken |
//! | [`ListenerTask`] | the task that receives notifications over a connection of its own |
//! | [`spawn_stealable`] | spawns a task that starts even if its caller then blocks |
//! | [`ReconnectBackoff`] | the pauses between failed sessions, and when to log a warning |

mod combiner;
mod listener;
mod reconnect;
mod registry;
mod stealable;

pub use combiner::{Combiner, GroupCommit, Requests, TimeLimits};
pub use listener::ListenerTask;
pub use reconnect::ReconnectBackoff;
pub use registry::{NotificationRegistry, Notified};
pub use stealable::spawn_stealable;

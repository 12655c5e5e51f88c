//! Which names this process waits for, and how their waiters are woken.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

/// Records which names the waiters of this process wait for, and wakes them.
///
/// This is the part of [`Backend::notified`](syncguard_core::Backend::notified) that every backend
/// with a listening connection shares. A name is a key, or whatever the store uses in its place,
/// such as a channel. Clones share one registry.
///
/// The task that owns the connection awaits [`changes`](Self::changes). For each name, it subscribes
/// if the name [is registered](Self::is_registered), and unsubscribes otherwise. It calls
/// [`wake`](Self::wake) when a notification arrives, *and also when a subscription begins*, because
/// the server sent no notification for a release before that. After a reconnect it calls
/// [`wake_all`](Self::wake_all) for the same reason.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let registry = syncguard_backend::NotificationRegistry::new();
/// let notified = registry.register("key");
/// for name in registry.changes().await {
///     assert!(registry.is_registered(&name));
///     // Subscribe to `name` here, then wake its waiters.
///     registry.wake(&name);
/// }
/// notified.await;
/// assert_eq!(registry.changes().await.len(), 1);
/// assert!(!registry.is_registered("key"));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct NotificationRegistry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    registered: HashMap<Arc<str>, Waiters>,
    /// The names that were registered or unregistered since the last call of `changes`.
    changes: HashSet<Arc<str>>,
}

#[derive(Default)]
struct Waiters {
    count: usize,
    wake: Arc<Notify>,
}

impl NotificationRegistry {
    /// Creates an empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a waiter for `name`. The returned future resolves if the name is woken after this
    /// call, even if it was not polled before.
    pub fn register(&self, name: &str) -> Notified {
        let mut state = self.shared.state();
        let name: Arc<str> = match state.registered.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let waiters = state.registered.entry(name.clone()).or_default();
        waiters.count += 1;
        let (first, woken) = (waiters.count == 1, waiters.wake.clone().notified_owned());
        if first {
            state.changes.insert(name.clone());
        }
        // A task woken while the mutex is held would only wait for it.
        drop(state);
        if first {
            self.shared.changed.notify_one();
        }
        Notified(Some(Registered { name, woken: Box::pin(woken), shared: self.shared.clone() }))
    }

    /// Wakes the waiters for `name`.
    pub fn wake(&self, name: &str) {
        let wake = self.shared.state().registered.get(name).map(|waiters| waiters.wake.clone());
        if let Some(wake) = wake {
            wake.notify_waiters();
        }
    }

    /// Wakes the waiters for every name, because notifications may have been missed.
    pub fn wake_all(&self) {
        let all: Vec<_> =
            self.shared.state().registered.values().map(|waiters| waiters.wake.clone()).collect();
        for wake in all {
            wake.notify_waiters();
        }
    }

    /// Returns true if a waiter for `name` is registered.
    #[must_use]
    pub fn is_registered(&self, name: &str) -> bool {
        self.shared.state().registered.contains_key(name)
    }

    /// Returns true if no waiter is registered for any name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.state().registered.is_empty()
    }

    /// Returns the names that have at least one registered waiter.
    #[must_use]
    pub fn registered(&self) -> Vec<Arc<str>> {
        self.shared.state().registered.keys().cloned().collect()
    }

    /// Waits until names are registered or unregistered, and returns those that changed since the
    /// last call.
    ///
    /// A returned name may have changed back in the meantime. Check whether it
    /// [is registered](Self::is_registered).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub async fn changes(&self) -> HashSet<Arc<str>> {
        loop {
            let changes = mem::take(&mut self.shared.state().changes);
            if !changes.is_empty() {
                return changes;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Waits until at least one waiter is registered. A listener task can then open its connection.
    ///
    /// This discards changes. A new session does not need them, because it begins with all
    /// [registered](Self::registered) names.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    pub async fn wait_until_registered(&self) {
        while self.is_empty() {
            self.changes().await;
        }
    }

    /// Waits for this time between two sessions.
    ///
    /// This discards changes. The next session does not need them, because it begins with all
    /// [registered](Self::registered) names.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    pub async fn pause(&self, pause: Duration) {
        let ignore_changes = async {
            loop {
                self.changes().await;
            }
        };
        // It always ends by the timeout, because the loop never does.
        let _ = timeout(pause, ignore_changes).await;
    }
}

impl fmt::Debug for NotificationRegistry {
    /// Leaves out the names, because they may contain keys, which must not appear in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = self.shared.state().registered.len();
        f.debug_struct("NotificationRegistry")
            .field("registered", &registered)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Removes one waiter for this name. Returns true if it was the last.
    fn unregister(&mut self, name: &Arc<str>) -> bool {
        let Some(waiters) = self.registered.get_mut(name) else {
            return false;
        };
        waiters.count -= 1;
        let last = waiters.count == 0;
        if last {
            self.registered.remove(name);
            self.changes.insert(name.clone());
        }
        last
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registration of one waiter for one name, as a future that resolves when the name is woken.
///
/// The name stays registered until this is dropped, also after the future has resolved. A waiter
/// that registers again before it drops this therefore keeps the subscription.
#[must_use = "the name stays registered until this is dropped"]
pub struct Notified(Option<Registered>);

struct Registered {
    name: Arc<str>,
    woken: Pin<Box<OwnedNotified>>,
    shared: Arc<Shared>,
}

impl Notified {
    /// Creates a future that never resolves, for a backend that receives no notifications.
    pub const fn never() -> Self {
        Self(None)
    }
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(registered) => registered.woken.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Notified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notified").finish_non_exhaustive()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.shared.state().unregister(&self.name) {
            self.shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_registered_and_dropped_many_times_is_one_change() {
        let registry = NotificationRegistry::new();
        // The listener task may be too busy to collect changes for a long time.
        for _ in 0..1_000 {
            drop(registry.register("key"));
        }
        assert_eq!(registry.changes().await.len(), 1);
    }

    #[test]
    fn debug_shows_no_names() {
        let registry = NotificationRegistry::new();
        let notified = registry.register("customer-4711");
        let shown = format!("{registry:?} {notified:?}");
        assert_eq!(shown, "NotificationRegistry { registered: 1, .. } Notified { .. }");
    }
}

//! Who waits for which name, for backends that push notifications.

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

/// Who in this process waits for which name: the part of
/// [`Backend::notified`](syncguard_core::Backend::notified) that is the same for every backend which
/// hears of releases through a connection of its own. Clones are the same.
///
/// The task that owns the connection awaits [`changes`](Self::changes), subscribes to what
/// [is wanted](Self::is_wanted) and unsubscribes from what is not. It calls [`wake`](Self::wake) when
/// a name was told of, *and also when a subscription is in place*: what happened before that, nobody
/// was told. After a reconnect it does so for [all](Self::wake_all).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let interests = syncguard_backend::NotificationRegistry::new();
/// let notification = interests.register("key");
/// for name in interests.changes().await {
///     assert!(interests.is_wanted(&name)); // so subscribe to it, and then
///     interests.wake(&name);
/// }
/// notification.await;
/// assert_eq!(interests.changes().await.len(), 1);
/// assert!(!interests.is_wanted("key"));
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
    wanted: HashMap<Arc<str>, Wanted>,
    /// The names that have become wanted or unwanted since they were last asked for.
    changes: HashSet<Arc<str>>,
}

#[derive(Default)]
struct Wanted {
    by: usize,
    heard: Arc<Notify>,
}

impl NotificationRegistry {
    /// Nobody waits for anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody waits for `name`: what is returned resolves when it is woken after this call.
    pub fn register(&self, name: &str) -> Notified {
        let mut state = self.shared.state();
        let name: Arc<str> = match state.wanted.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let wanted = state.wanted.entry(name.clone()).or_default();
        wanted.by += 1;
        let (first, heard) = (wanted.by == 1, wanted.heard.clone().notified_owned());
        if first {
            state.changes.insert(name.clone());
        }
        // Nobody is woken under the mutex.
        drop(state);
        if first {
            self.shared.changed.notify_one();
        }
        Notified(Some(Registered { name, heard: Box::pin(heard), shared: self.shared.clone() }))
    }

    /// Wakes those who wait for `name`.
    pub fn wake(&self, name: &str) {
        let heard = self.shared.state().wanted.get(name).map(|wanted| wanted.heard.clone());
        if let Some(heard) = heard {
            heard.notify_waiters();
        }
    }

    /// Wakes everybody: what was told in the meantime may have been missed.
    pub fn wake_all(&self) {
        let all: Vec<_> =
            self.shared.state().wanted.values().map(|wanted| wanted.heard.clone()).collect();
        for heard in all {
            heard.notify_waiters();
        }
    }

    /// Whether somebody waits for `name`.
    #[must_use]
    pub fn is_wanted(&self, name: &str) -> bool {
        self.shared.state().wanted.contains_key(name)
    }

    /// Whether nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.state().wanted.is_empty()
    }

    /// The names that somebody waits for.
    #[must_use]
    pub fn wanted(&self) -> Vec<Arc<str>> {
        self.shared.state().wanted.keys().cloned().collect()
    }

    /// The names that have become wanted or unwanted since the last call, at least one. One that is
    /// named may have changed back since, so ask whether it [is wanted](Self::is_wanted).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no change is lost.
    pub async fn changes(&self) -> HashSet<Arc<str>> {
        loop {
            let changes = mem::take(&mut self.shared.state().changes);
            if !changes.is_empty() {
                return changes;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Resolves when somebody waits: for a task that has no connection until then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost but changes, which the next session does not need.
    pub async fn somebody(&self) {
        while self.is_empty() {
            self.changes().await;
        }
    }

    /// Lets time pass between two connections, of which the next one begins with all that are
    /// [wanted](Self::wanted): so no changes are kept.
    ///
    /// # Cancel safety
    ///
    /// As [`somebody`](Self::somebody).
    pub async fn pause(&self, pause: Duration) {
        let ignore_changes = async {
            loop {
                self.changes().await;
            }
        };
        // That it ends by its time is what it is for.
        let _ = timeout(pause, ignore_changes).await;
    }
}

impl fmt::Debug for NotificationRegistry {
    /// Without the names, which may be what keys must not be: readable in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.shared.state().wanted.len();
        f.debug_struct("NotificationRegistry").field("wanted", &wanted).finish_non_exhaustive()
    }
}

impl State {
    /// One who waited for this name has gone. True if that was the last.
    fn forget_one(&mut self, name: &Arc<str>) -> bool {
        let Some(wanted) = self.wanted.get_mut(name) else {
            return false;
        };
        wanted.by -= 1;
        let last = wanted.by == 0;
        if last {
            self.wanted.remove(name);
            self.changes.insert(name.clone());
        }
        last
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for a name: resolves when it is woken. The name is wanted until this is dropped, also
/// when it has resolved, so that whoever asks again before that keeps the subscription.
#[must_use = "the name is wanted until this is dropped"]
pub struct Notified(Option<Registered>);

struct Registered {
    name: Arc<str>,
    heard: Pin<Box<OwnedNotified>>,
    shared: Arc<Shared>,
}

impl Notified {
    /// Never resolves: where nothing is heard.
    pub const fn never() -> Self {
        Self(None)
    }
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(registered) => registered.heard.as_mut().poll(cx),
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
        if self.shared.state().forget_one(&self.name) {
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
        // The listener task may be busy for a long time.
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
        assert_eq!(shown, "NotificationRegistry { wanted: 1, .. } Notified { .. }");
    }
}

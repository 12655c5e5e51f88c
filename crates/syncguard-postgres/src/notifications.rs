//! Notifications that a key may be free, by LISTEN and NOTIFY.
//!
//! A release notifies one channel per lock table, with a hash of the key. NOTIFY takes a lock across the
//! whole cluster when its transaction commits, so a release sends it only if somebody may wait. A
//! *waiter lock* tells it: keys fall into 256 buckets, by the first byte of their hash, and the
//! listening session holds a shared advisory lock on the bucket of each key that is waited for. A release
//! tries to get the same lock exclusively. It fails if a session waits for a key of that bucket. It also
//! fails if another session releases one at the same moment, which costs a notification that nobody
//! needs. Waiter locks cost no I/O and end with their session. A session holds at most 256 of them in the
//! server's lock table, however many keys are waited for.
//!
//! No release is missed. The session first listens, then takes the waiter lock, then wakes the waiter,
//! which tries again.
//!
//! - If the release does not get the lock, it sends a notification when it commits, to a session that
//!   listens.
//! - If it gets the lock, it holds it *until its commit*. So the session takes the waiter lock after
//!   that, and the attempt that follows finds the key free.
//!
//! A release must not give the lock back before its commit. Otherwise the session could take the waiter
//! lock, the attempt could still find the key held, and the release would then commit without a
//! notification. The one exception is a server whose notification queue is nearly full: see release.sql.
//!
//! The hash is the SHA-256 of the key in UTF-8, which both the server and this crate can compute: a
//! release by id reads the key on the server, and a waiter has it here. Its first eight bytes name the
//! key in a notification, so no raw key is sent.

mod channel;
mod connection;
mod listener;
mod route;
mod session;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use syncguard_backend::{ListenerTask, NotificationRegistry, Notified};
use syncguard_core::Key;

use self::channel::name_of;
use self::listener::Listener;
use self::route::{NONE_ARRIVE, Route};
use crate::connections::Connections;
use crate::names::Names;
use crate::operations::Protocol;

/// Who waits in this process, and the task that listens for them, if somebody does.
#[derive(Debug)]
pub(crate) struct Notifications {
    interests: NotificationRegistry,
    route: Arc<Route>,
    task: ListenerTask,
}

impl Notifications {
    /// Listens as the statements are sent, or with `listen_on` if it is given. Returns `None` if the
    /// protocol says that they go through a pooler in transaction mode: no notification arrives there.
    pub(crate) fn through(
        connections: &Connections,
        protocol: Protocol,
        listen_on: Option<PgConnectOptions>,
        names: &Names,
        limit: Duration,
    ) -> Option<Self> {
        if listen_on.is_none() && protocol == Protocol::Simple {
            tracing::warn!("{NONE_ARRIVE}");
            return None;
        }
        let route = Route::new(connections.clone(), listen_on, names.channel.clone(), limit);
        Some(Self {
            interests: NotificationRegistry::new(),
            route: Arc::new(route),
            task: ListenerTask::new(),
        })
    }

    /// Whether notifications arrive, as far as is known.
    pub(crate) fn arrive(&self) -> bool {
        !self.route.is_blocked()
    }

    /// Resolves when `key` may have become free since this call.
    pub(crate) fn notified(&self, key: &Key) -> Notified {
        let notification = self.interests.register(&name_of(key));
        self.task
            .ensure_running(|| Listener::new(self.interests.clone(), self.route.clone()).run());
        notification
    }
}

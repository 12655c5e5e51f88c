//! Notifications that a key may be free, by LISTEN and NOTIFY.
//!
//! A release notifies one channel per lock table with a hash of the key. NOTIFY takes a lock across
//! the whole cluster when its transaction commits, so a release does it only where somebody may be
//! waiting. It learns that from a *sign*: keys fall into 256 buckets, by the first byte of their
//! hash, and the listening session holds a shared advisory lock on the bucket of each key that is
//! waited for. A release tries to get the same lock exclusively. It fails exactly when some session
//! waits for a key of that bucket, or at the same moment releases one, which costs a notification
//! that nobody needs. Signs cost no I/O, vanish with the session that put them up, and however many
//! keys are waited for, a session holds no more than 256 of them in the server's lock table.
//!
//! No release is missed. The session first listens, then puts up the sign, then wakes the waiter,
//! which tries again. A release whose try fails sends its notification when it commits, to a
//! session that listens. A release whose try succeeds holds the lock *until its commit*, so that
//! the sign, which the lock keeps out, is put up later than that: the attempt made after that finds
//! the key free. A lock given back before the commit would not do: the sign, the attempt, which
//! finds the key still held, and then the commit of the release, untold. The exception is a server
//! whose queue of notifications is nearly full: see release.sql.
//!
//! The hash is SHA-256 of the key in UTF-8, which the server and this crate both can compute: a
//! release by id alone knows the key on the server only, and a waiter knows it here only. Its first
//! eight bytes name the key in a notification, so no raw key is ever sent.

mod channel;
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
use self::route::{NOT_HEARD, Route};
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
            tracing::warn!("{NOT_HEARD}");
            return None;
        }
        let route = Route::new(connections.clone(), listen_on, names.channel.clone(), limit);
        Some(Self {
            interests: NotificationRegistry::new(),
            route: Arc::new(route),
            task: ListenerTask::new(),
        })
    }

    /// Whether releases are heard, as far as is known.
    pub(crate) fn are_heard(&self) -> bool {
        !self.route.is_deaf()
    }

    /// Resolves when `key` may have become free since this call.
    pub(crate) fn notified(&self, key: &Key) -> Notified {
        let notification = self.interests.register(&name_of(key));
        self.task
            .ensure_running(|| Listener::new(self.interests.clone(), self.route.clone()).run());
        notification
    }
}

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
//! which tries again. A release whose try fails is told of when it commits, to a session that
//! listens. A release whose try succeeds holds the lock *until its commit*, so that the sign, which
//! the lock keeps out, is put up later than that: the attempt made after that finds the key free.
//! A lock given back before the commit would not do: the sign, the attempt, which finds the key
//! still held, and then the commit of the release, untold. The exception is a server whose queue of
//! notifications is nearly full: see release.sql.
//!
//! The hash is SHA-256 of the key in UTF-8, which the server and this crate both can compute: a
//! release by id alone knows the key on the server only, and a waiter knows it here only. Its first
//! eight bytes name the key in a notification, so no raw key is ever sent.

mod channel;
mod listener;
mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_backend::{ListenerTask, NotificationRegistry, Notified};
use syncguard_core::Key;
use tokio::time::Instant;

use self::channel::name_of;
use self::listener::Listener;

/// Who waits in this process, and the task that listens for them, if somebody does.
#[derive(Debug)]
pub(crate) struct Notifications {
    interests: NotificationRegistry,
    way: Arc<Way>,
    task: ListenerTask,
}

/// How releases are heard.
#[derive(Debug)]
struct Way {
    /// The statements go through it.
    pool: PgPool,
    /// The way to the server for the listening connection, if it is another.
    listen_on: Option<PgConnectOptions>,
    channel: String,
    /// For connecting, and for each statement.
    limit: Duration,
    /// Until when it is no use to listen, once that was found out.
    deaf_until: Mutex<Option<Instant>>,
}

impl Notifications {
    pub(crate) fn new(
        pool: PgPool,
        listen_on: Option<PgConnectOptions>,
        channel: String,
        limit: Duration,
    ) -> Self {
        let way = Way { pool, listen_on, channel, limit, deaf_until: Mutex::default() };
        Self {
            interests: NotificationRegistry::new(),
            way: Arc::new(way),
            task: ListenerTask::new(),
        }
    }

    /// Whether releases are heard, as far as is known.
    pub(crate) fn are_heard(&self) -> bool {
        lock(&self.way.deaf_until).is_none_or(|until| until <= Instant::now())
    }

    /// Resolves when `key` may have become free since this call.
    pub(crate) fn notified(&self, key: &Key) -> Notified {
        let notification = self.interests.register(&name_of(key));
        self.task.ensure_running(|| Listener::new(self.interests.clone(), self.way.clone()).run());
        notification
    }
}

impl Way {
    /// It is of no use to listen for so long. True the first time.
    fn is_deaf_for(&self, pause: Duration) -> bool {
        lock(&self.deaf_until).replace(Instant::now() + pause).is_none()
    }
}

/// Said once, with the remedy.
pub(crate) const NOT_HEARD: &str = "releases cannot be heard, as behind a pooler that gives each \
    transaction another session; waiting goes on by timer: give PostgresBackendBuilder::listen_on a \
    direct way to the same database, or turn notifications off";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step can panic halfway, so what a poisoned one holds is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The connection settings of the listening session, and whether notifications arrive through it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::time::Instant;

/// How the listening session connects.
#[derive(Debug)]
pub(super) struct Route {
    /// Statements go through it.
    pub(super) pool: PgPool,
    /// The address of the server for the listening session, if it is not that of the pool.
    pub(super) listen_on: Option<PgConnectOptions>,
    pub(super) channel: String,
    /// For connecting, and for each statement.
    pub(super) limit: Duration,
    /// When to listen again, after a test showed that no notification arrives.
    deaf_until: Mutex<Option<Instant>>,
}

impl Route {
    pub(super) fn new(
        pool: PgPool,
        listen_on: Option<PgConnectOptions>,
        channel: String,
        limit: Duration,
    ) -> Self {
        Self { pool, listen_on, channel, limit, deaf_until: Mutex::default() }
    }

    /// Whether no notification arrives, as far as is known.
    pub(super) fn is_deaf(&self) -> bool {
        self.lock().is_some_and(|until| until > Instant::now())
    }

    /// Records that no notification arrives, and that nobody should listen for this long. True the
    /// first time.
    pub(super) fn set_deaf_for(&self, pause: Duration) -> bool {
        self.lock().replace(Instant::now() + pause).is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // No code that can panic runs while the mutex is held.
        self.deaf_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logged once, with the remedy.
pub(super) const NOT_HEARD: &str = "releases cannot be heard, as behind a pooler that gives each \
    transaction another session; waiting goes on by timer: give PostgresBackendBuilder::listen_on a \
    direct way to the same database, or turn notifications off";

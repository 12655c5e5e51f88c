//! The connection settings of the listening session, and whether notifications arrive through it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::time::Instant;

use crate::connect;
use crate::connections::Connections;

/// How the listening session connects.
#[derive(Debug)]
pub(super) struct Route {
    /// Statements go through them.
    pub(super) connections: Connections,
    /// The options of the listening session, if they are not those of the others.
    pub(super) listen_on: Option<PgConnectOptions>,
    pub(super) channel: String,
    /// For connecting, and for each statement.
    pub(super) limit: Duration,
    /// When to listen again, after a test showed that no notification arrives.
    blocked_until: Mutex<Option<Instant>>,
}

impl Route {
    pub(super) fn new(
        connections: Connections,
        listen_on: Option<PgConnectOptions>,
        channel: String,
        limit: Duration,
    ) -> Self {
        Self { connections, listen_on, channel, limit, blocked_until: Mutex::default() }
    }

    /// How the listening session connects now.
    pub(super) fn options(&self) -> PgConnectOptions {
        match &self.listen_on {
            Some(options) => connect::adapt(options),
            None => connect::options_of(self.connections.pool()),
        }
    }

    /// Whether no notification arrives, as far as is known.
    pub(super) fn is_blocked(&self) -> bool {
        self.lock().is_some_and(|until| until > Instant::now())
    }

    /// Records that no notification arrives, and that nobody should listen for this long. True the
    /// first time.
    pub(super) fn set_blocked_for(&self, pause: Duration) -> bool {
        self.lock().replace(Instant::now() + pause).is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // No code that can panic runs while the mutex is held.
        self.blocked_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logged once, with the remedy.
pub(super) const NONE_ARRIVE: &str = "no notifications of releases arrive, as behind a pooler that gives each \
    transaction another session; waiting goes on by timer: give PostgresBackendBuilder::listen_on a \
    direct way to the same database, or turn notifications off";

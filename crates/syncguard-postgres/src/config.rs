//! The settings of a backend.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_core::{Error, ErrorCode, Operation, Result};

use crate::backend::{COMMAND_TIMEOUT, PostgresBackend};
use crate::notifications::Notifications;
use crate::tables::{FENCE_TABLE, LOCK_TABLE, Tables};

/// Builds a [`PostgresBackend`] on a pool, with settings other than the defaults.
///
/// # Default
///
/// - Tables `syncguard_locks` and `syncguard_fence_counters`, as other SyncGuard clients name them.
/// - A command timeout of 5 seconds.
/// - Releases notify waiters, over one more connection, and no trigger is set up.
#[derive(Clone, Debug)]
#[must_use = "does nothing until `build` is called"]
pub struct PostgresBackendBuilder {
    pool: PgPool,
    lock_table: String,
    fence_table: String,
    command_timeout: Duration,
    notifications: bool,
    listen_on: Option<PgConnectOptions>,
    delete_trigger: bool,
}

impl PostgresBackend {
    /// Starts to build a backend with other settings, such as the names of the tables.
    pub fn builder(pool: PgPool) -> PostgresBackendBuilder {
        PostgresBackendBuilder {
            pool,
            lock_table: LOCK_TABLE.to_owned(),
            fence_table: FENCE_TABLE.to_owned(),
            command_timeout: COMMAND_TIMEOUT,
            notifications: true,
            listen_on: None,
            delete_trigger: false,
        }
    }
}

impl PostgresBackendBuilder {
    /// The table of locks. All clients that share locks must name it alike.
    ///
    /// The name is found through the `search_path`. It is used as written, capitals included; the
    /// TypeScript client works with lower-case names only.
    pub fn lock_table(mut self, name: impl Into<String>) -> Self {
        self.lock_table = name.into();
        self
    }

    /// The table of fence counters. All clients that share locks must name it alike.
    pub fn fence_table(mut self, name: impl Into<String>) -> Self {
        self.fence_table = name.into();
        self
    }

    /// How long one operation may take, the wait for a connection of the pool included.
    ///
    /// Make it longer where other transactions hold locks for longer (see
    /// [`acquire_in`](PostgresBackend::acquire_in)), and shorter where leases are short: a renewal
    /// needs its answer well before the lease expires.
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.command_timeout = limit;
        self
    }

    /// Whether releases notify the waiters of this process, which takes one more connection while
    /// there are waiters. Without notifications they try again by timer. See [the
    /// crate](crate#waiting).
    ///
    /// The releases of this process notify other processes in either case.
    pub fn notifications(mut self, notifications: bool) -> Self {
        self.notifications = notifications;
        self
    }

    /// Sets the options of the listening connection, if they must differ from those of the pool:
    /// for a pool behind a pooler in transaction mode, through which no notification arrives.
    ///
    /// It must lead to the same database of the same primary server.
    pub fn listen_on(mut self, options: PgConnectOptions) -> Self {
        self.listen_on = Some(options);
        self
    }

    /// Makes [`setup_schema`](PostgresBackend::setup_schema) and
    /// [`schema_sql`](PostgresBackend::schema_sql) add a trigger to the lock table, which notifies
    /// waiters if another client releases a lease with a plain `DELETE`.
    ///
    /// Use it if you share locks with SyncGuard for TypeScript, whose releases notify no waiter. A
    /// table has one such trigger for all clients. It costs each deletion a call of a PL/pgSQL
    /// function.
    pub fn delete_trigger(mut self, trigger: bool) -> Self {
        self.delete_trigger = trigger;
        self
    }

    /// Checks the settings. No connection is made.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] when a table name is no plain identifier
    /// (`^[a-zA-Z_][a-zA-Z0-9_]*$`), when it, or the name of an index made of it, is longer than
    /// the 63 bytes that Postgres keeps, when two names collide, or when the timeout is under 2 ms
    /// or over an hour.
    pub fn build(self) -> Result<PostgresBackend> {
        let Self {
            pool,
            lock_table,
            fence_table,
            command_timeout,
            notifications,
            listen_on,
            delete_trigger,
        } = self;
        if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&command_timeout) {
            let error = Error::new(ErrorCode::InvalidArgument, Operation::Configure);
            return Err(error.with_message("the command timeout is under 2 ms or over an hour"));
        }
        let tables = Tables::new(&lock_table, &fence_table)?;
        let notifications = notifications
            .then(|| Notifications::through(&pool, listen_on, &tables, command_timeout))
            .flatten();
        Ok(PostgresBackend::on(pool, tables, command_timeout, notifications, delete_trigger))
    }
}

/// Half of it is still a limit that the server knows.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(2);

/// Far above any use, and far below what the server's limits and the clock can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn e3_the_command_timeout_has_bounds() {
        let pool = PgPool::connect_lazy("postgres://localhost").unwrap();
        let build = |limit| PostgresBackend::builder(pool.clone()).command_timeout(limit).build();
        for limit in [SHORTEST_TIMEOUT, COMMAND_TIMEOUT, LONGEST_TIMEOUT] {
            assert!(build(limit).is_ok(), "{limit:?}");
        }
        let hour = Duration::from_secs(3600);
        for limit in [Duration::ZERO, Duration::from_millis(1), hour * 2, Duration::MAX] {
            let error = build(limit).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{limit:?}");
        }
    }
}

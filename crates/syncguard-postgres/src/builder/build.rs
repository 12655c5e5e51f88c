//! From settings to a backend: by a URL, or like a pool.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::PostgresBackendBuilder;
use crate::backend::{Parts, PostgresBackend};
use crate::connect::{self, Refusal};
use crate::connections::Connections;
use crate::database::Database;
use crate::names::{Names, leader_table};
use crate::notifications::Notifications;
use crate::operations::{Protocol, Statements};

impl PostgresBackend {
    /// Connects to a database with the default settings.
    ///
    /// See [`PostgresBackendBuilder::connect`].
    ///
    /// # Errors
    ///
    /// As [`PostgresBackendBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection is closed.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder().connect(url).await
    }

    /// Creates a backend that connects as `pool` does, with the default settings.
    ///
    /// It takes no connection from the pool. See [`PostgresBackendBuilder::build`].
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::builder().assemble(pool, Names::default())
    }
}

impl PostgresBackendBuilder {
    /// Connects to a database.
    ///
    /// The URL is that of sqlx: `postgres://user:password@host:5432/database?sslmode=require`. The
    /// method opens one connection, which the first operation uses, so that it can report a wrong
    /// address or password. It also makes a pool for transactions of your own, which opens no
    /// connection until you use it: see [`pool`](PostgresBackend::pool).
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::InvalidArgument`] if a setting is bad (see [`build`](Self::build)), if the URL
    ///   is not one of Postgres or has a parameter that the driver would ignore, if the database does
    ///   not exist, or if the server's certificate cannot be verified.
    /// - [`ErrorCode::AuthFailed`] if the server refuses the user or the password.
    /// - [`ErrorCode::ServiceUnavailable`], [`ErrorCode::NetworkTimeout`] and
    ///   [`ErrorCode::RateLimited`] if the server cannot be reached now.
    ///
    /// The message names address, database, user and cause, but never the password.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection is closed.
    pub async fn connect(self, url: &str) -> Result<PostgresBackend> {
        let names = self.check()?;
        Handle::try_current().map_err(|source| {
            Error::new(ErrorCode::InvalidArgument, Operation::Connect)
                .with_message("called outside a tokio runtime: call it from a task of one")
                .with_source(source)
        })?;
        let options = connect::parse(url)?;
        let adapted = connect::adapt(&options);
        let connected = timeout(self.command_timeout, connect::open(&adapted)).await;
        let connected = connected.unwrap_or_else(|_| Err(Refusal::timed_out(&adapted)));
        let connection = connected.map_err(|refusal| refusal.into_error(Operation::Connect))?;
        let pool = PgPoolOptions::new().acquire_timeout(self.command_timeout);
        let backend = self.assemble(pool.connect_lazy_with(options), names);
        backend.connections().adopt(connection);
        Ok(backend)
    }

    /// Builds a backend that connects as `pool` does. No connection is made yet.
    ///
    /// The backend takes no connection from the pool. It opens connections of its own, with the
    /// [connect options](sqlx::Pool::connect_options) that the pool has at that time, so a password that
    /// you change there takes effect here too. It does not run hooks of the pool such as
    /// `after_connect`: put settings of the session into the connect options. When the pool is closed,
    /// the backend closes its connections, and its operations fail with [`ErrorCode::Aborted`].
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if a name is no plain identifier (`^[a-zA-Z_][a-zA-Z0-9_]*$`),
    /// if it, or the name of an index made of it, is longer than the 63 bytes that Postgres keeps, if
    /// two names collide, if the timeout is under 2 ms or over an hour, or if there are no connections.
    pub fn build(self, pool: PgPool) -> Result<PostgresBackend> {
        let names = self.check()?;
        Ok(self.assemble(pool, names))
    }

    fn check(&self) -> Result<Names> {
        if !(SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&self.command_timeout) {
            return Err(invalid("the command timeout must be between 2 ms and an hour"));
        }
        if self.max_connections == Some(0) {
            return Err(invalid("max_connections must be at least 1"));
        }
        let leaders = self.leader_table.clone();
        let leaders = leaders.unwrap_or_else(|| leader_table(&self.lock_table));
        Names::new(self.schema.as_deref(), &self.lock_table, &self.fence_table, &leaders)
    }

    fn assemble(self, pool: PgPool, names: Names) -> PostgresBackend {
        let protocol = Protocol::of(&pool);
        let max = self.max_connections.unwrap_or_else(|| pool.options().get_max_connections());
        let connections = Connections::new(pool, max, self.command_timeout);
        let notifications = self.notifications.then(|| {
            let (listen_on, limit) = (self.listen_on, self.command_timeout);
            Notifications::through(&connections, protocol, listen_on, &names, limit)
        });
        let statements = Statements::new(&names, protocol);
        let command_timeout = self.command_timeout;
        PostgresBackend::of(Parts {
            database: Database { connections, names, statements, command_timeout },
            group_commit: self.group_commit,
            notifications: notifications.flatten(),
            delete_trigger: self.delete_trigger,
        })
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(message)
}

/// Half of it is still a limit that the server knows.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(2);

/// Far above any use, and far below what the server's limits and the clock can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::super::COMMAND_TIMEOUT;
    use super::*;

    #[tokio::test]
    async fn e3_the_command_timeout_has_bounds() {
        let pool = PgPool::connect_lazy("postgres://localhost").unwrap();
        let build = |limit| PostgresBackend::builder().command_timeout(limit).build(pool.clone());
        for limit in [SHORTEST_TIMEOUT, COMMAND_TIMEOUT, LONGEST_TIMEOUT] {
            assert!(build(limit).is_ok(), "{limit:?}");
        }
        let hour = Duration::from_secs(3600);
        for limit in [Duration::ZERO, Duration::from_millis(1), hour * 2, Duration::MAX] {
            let error = build(limit).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{limit:?}");
        }
    }

    #[tokio::test]
    async fn e3_there_is_at_least_one_connection() {
        let pool = PgPool::connect_lazy("postgres://localhost").unwrap();
        let error = PostgresBackend::builder().max_connections(0).build(pool).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}

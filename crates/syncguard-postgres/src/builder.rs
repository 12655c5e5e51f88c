//! The settings of a backend.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::backend::{Parts, PostgresBackend};
use crate::connect::{self, Refusal};
use crate::connections::Connections;
use crate::database::Database;
use crate::groups::{self, GroupCommit};
use crate::names::{FENCE_TABLE, LOCK_TABLE, Names, leader_table};
use crate::notifications::Notifications;
use crate::operations::{Protocol, Statements};

/// Builds a [`PostgresBackend`] with settings other than the defaults.
///
/// ```no_run
/// use std::time::Duration;
/// use syncguard_postgres::PostgresBackend;
///
/// # async fn example() -> Result<(), syncguard_postgres::Error> {
/// let backend = PostgresBackend::builder()
///     .schema("app")
///     .command_timeout(Duration::from_secs(2))
///     .connect("postgres://app@localhost/app")
///     .await?;
/// # let _ = backend;
/// # Ok(()) }
/// ```
///
/// # Default
///
/// - Tables `syncguard_locks` and `syncguard_fence_counters`, as other SyncGuard clients name them, and
///   `syncguard_leaders`, in the schema that the `search_path` finds.
/// - A command timeout of 5 seconds.
/// - As many connections as the pool may have, or 10 with [`connect`](Self::connect), and 2 more for
///   renewals and releases.
/// - Releases notify waiters, over one more connection, and no trigger is set up.
#[derive(Clone, Debug)]
#[must_use = "does nothing until `connect` or `build` is called"]
pub struct PostgresBackendBuilder {
    schema: Option<String>,
    lock_table: String,
    fence_table: String,
    leader_table: Option<String>,
    command_timeout: Duration,
    max_connections: Option<u32>,
    group_commit: Option<GroupCommit>,
    notifications: bool,
    listen_on: Option<PgConnectOptions>,
    delete_trigger: bool,
}

impl PostgresBackend {
    /// Starts to build a backend with other settings, such as the names of the tables.
    pub fn builder() -> PostgresBackendBuilder {
        PostgresBackendBuilder {
            schema: None,
            lock_table: LOCK_TABLE.to_owned(),
            fence_table: FENCE_TABLE.to_owned(),
            leader_table: None,
            command_timeout: COMMAND_TIMEOUT,
            max_connections: None,
            group_commit: Some(groups::DEFAULT),
            notifications: true,
            listen_on: None,
            delete_trigger: false,
        }
    }

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
    /// Sets the schema of the tables, such as `app`. It must exist. All clients that share locks must
    /// use the same one.
    ///
    /// Without it, the `search_path` of each session decides which tables are meant. A pooler or a
    /// changed role can change that path, and then two processes can hold the same key, in two
    /// schemas. [`setup_schema`](PostgresBackend::setup_schema) logs a warning if it finds the tables
    /// in another schema than `public` in this way.
    ///
    /// The name is used as written, capitals included.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// Sets the name of the lock table. All clients that share locks must use the same one.
    ///
    /// The name is used as written, capitals included. The TypeScript client works with lower-case
    /// names only.
    pub fn lock_table(mut self, name: impl Into<String>) -> Self {
        self.lock_table = name.into();
        self
    }

    /// Sets the name of the table of fence counters. All clients that share locks must use the same
    /// one.
    pub fn fence_table(mut self, name: impl Into<String>) -> Self {
        self.fence_table = name.into();
        self
    }

    /// Sets the name of the table for what leaders [publish](crate::Backend::publish). All clients that
    /// elect the same leaders must use the same one, and each lock table needs one of its own.
    ///
    /// The default is `syncguard_leaders`. With another [lock table](Self::lock_table), it is the name of
    /// that table and `_leaders`.
    pub fn leader_table(mut self, name: impl Into<String>) -> Self {
        self.leader_table = Some(name.into());
        self
    }

    /// Sets how long one operation may take. It waits for a connection for at most half of that time.
    ///
    /// Make it longer if other transactions hold locks for longer (see
    /// [`acquire_in`](PostgresBackend::acquire_in)), and shorter if leases are short: a renewal needs
    /// its answer well before the lease expires.
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.command_timeout = limit;
        self
    }

    /// Sets how many connections attempts and lookups may use at a time.
    ///
    /// Renewals and releases may use 2 more, so that they need not wait behind attempts, and waiters
    /// share one more if [notifications](Self::notifications) are on. A connection is opened when
    /// none is idle, and closed after a minute without use.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Sets how concurrent operations share statements: at most `lanes` statements of a kind (attempts,
    /// renewals, releases) are under way at a time, each with at most `most` operations. The default is
    /// 2 lanes and 128 operations. A value of 0 counts as 1.
    ///
    /// While fewer are under way, an operation is sent at once and alone. Otherwise it waits until one
    /// of them is answered, and goes out with all others that wait. So a commit serves many locks when
    /// there is much to do, and nothing is delayed when there is not. More lanes suit a server that is
    /// far away.
    pub fn group_commit(mut self, lanes: usize, most: usize) -> Self {
        self.group_commit = Some(GroupCommit { lanes, cap: most });
        self
    }

    /// Sends each operation in a statement of its own.
    pub fn without_group_commit(mut self) -> Self {
        self.group_commit = None;
        self
    }

    /// Sets whether this process receives notifications of releases, over one more connection while
    /// it has waiters. Without them, waiters retry by timer. See [the crate](crate#waiting).
    ///
    /// The releases of this process notify other processes in either case.
    pub fn notifications(mut self, notifications: bool) -> Self {
        self.notifications = notifications;
        self
    }

    /// Sets the options of the listening connection, if they must differ from those of the other
    /// connections. Use it behind a pooler in transaction mode, through which no notification arrives.
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

/// How long one operation may take, unless the builder says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

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

//! The backend: a pool, the statements, and how their rows meet the trait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::{ConnectOptions, Connection, Row};
use syncguard_backend::Notified;
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Error, ErrorCode, Key, Lease, LockId, LockRecord,
    Operation, Result, Ttl,
};
use tokio::time::{Instant, timeout_at};

use crate::connections::Connections;
use crate::error::{NO_CONNECTION, classify, is_conflict, timed_out};
use crate::notifications::Notifications;
use crate::row;
use crate::statement::{Protocol, Statement, Statements, Value, patience};
use crate::tables::Tables;

/// Locks in a Postgres database.
///
/// It is a pool and a few texts: cloning is cheap, and a held lock holds no connection. The
/// [crate page](crate) says what is stored, what survives a crash, and what an error means.
#[derive(Clone)]
pub struct PostgresBackend {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    tables: Tables,
    statements: Statements,
    command_timeout: Duration,
    /// If they are on.
    notifications: Option<Notifications>,
    delete_trigger: bool,
}

impl PostgresBackend {
    /// Connects to a database, through a pool of its own with up to 10 connections.
    ///
    /// The URL is sqlx's: `postgres://user:password@host:5432/database?sslmode=require`. Take
    /// [`new`](Self::new) to share a pool, [`pool_options`](Self::pool_options) to size one.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a bad URL, and everything that a first connection can say:
    /// one is opened and closed, since the pool would repeat a refused one until its time is up.
    pub async fn connect(url: &str) -> Result<Self> {
        let failed = |error| classify(Operation::Configure, &Tables::default(), error);
        let options: PgConnectOptions = url.parse().map_err(failed)?;
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        timeout_at(deadline, async { options.connect().await?.close().await })
            .await
            .map_err(|_| timed_out(Operation::Configure))?
            .map_err(failed)?;
        Ok(Self::new(Self::pool_options().connect_lazy_with(options)))
    }

    /// Uses a pool, with the default settings.
    ///
    /// A pool made with sqlx's defaults asks the server whether a connection is alive before each
    /// statement, a second round trip; [`pool_options`](Self::pool_options) has the settings that
    /// [`connect`](Self::connect) uses instead.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        let tables = Tables::default();
        let notifications = Notifications::through(&pool, None, &tables, COMMAND_TIMEOUT);
        Self::on(pool, tables, COMMAND_TIMEOUT, notifications, false)
    }

    /// sqlx's pool options, set for short statements: a connection is tested before use only if it
    /// was idle for over a second.
    #[must_use]
    pub fn pool_options() -> PgPoolOptions {
        PgPoolOptions::new()
            .acquire_timeout(COMMAND_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
    }

    pub(crate) fn on(
        pool: PgPool,
        tables: Tables,
        command_timeout: Duration,
        notifications: Option<Notifications>,
        delete_trigger: bool,
    ) -> Self {
        let statements = Statements::new(&tables, Protocol::of(&pool));
        Self {
            shared: Arc::new(Shared {
                connections: Connections::new(pool),
                tables,
                statements,
                command_timeout,
                notifications,
                delete_trigger,
            }),
        }
    }

    /// The pool, for instance to begin a transaction for [`acquire_in`](Self::acquire_in).
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.shared.connections.pool()
    }

    /// Removes the rows of leases that expired more than `older_than` ago, and says how many.
    ///
    /// It is never needed: a dead row is reused by the next grant of its key. It keeps the table
    /// small where keys do not come back. A lease that expired less than 2 seconds ago is never
    /// touched, and neither is a fence counter.
    ///
    /// # Errors
    ///
    /// As the server fails. Rows are removed in batches of a thousand, each within the command
    /// timeout; those already removed stay removed.
    ///
    /// # Cancel safety
    ///
    /// Each batch is removed or untouched.
    pub async fn purge_expired(&self, older_than: Duration) -> Result<u64> {
        let older_than = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let values = |_| [Value::Millis(Some(older_than))];
        let mut total = 0;
        loop {
            let purge = &self.shared.statements.purge;
            let row = self.run(Operation::Configure, purge, values).await?;
            match row.map(|row| row.try_get::<i64, _>(0)).transpose() {
                Ok(None | Some(0)) => return Ok(total),
                Ok(Some(removed)) => total += u64::try_from(removed).unwrap_or(0),
                Err(error) => return Err(self.failed(Operation::Configure, error)),
            }
        }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.shared.tables
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared.statements
    }

    pub(crate) fn has_delete_trigger(&self) -> bool {
        self.shared.delete_trigger
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.shared.command_timeout
    }

    /// When an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.command_timeout
    }

    /// What an error of the driver means here.
    pub(crate) fn failed(&self, operation: Operation, error: sqlx::Error) -> Error {
        classify(operation, self.tables(), error)
    }

    pub(crate) async fn connection(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<PoolConnection<Postgres>> {
        match timeout_at(deadline, self.shared.connections.take()).await {
            Ok(connection) => connection.map_err(|error| self.failed(operation, error)),
            Err(_) => {
                Err(Error::new(ErrorCode::ServiceUnavailable, operation)
                    .with_message(NO_CONNECTION))
            }
        }
    }

    /// Sends a statement over a connection of the pool, and once more where others have undone it: by
    /// a conflict, at a stricter isolation level than READ COMMITTED, or by filling up the queue of
    /// notifications at just that moment.
    ///
    /// Its values may include how long it may wait for a lock, which depends on how long it took to
    /// get the connection.
    async fn run<'a, const N: usize>(
        &self,
        operation: Operation,
        statement: &Statement,
        values: impl Fn(Value<'a>) -> [Value<'a>; N] + Send + Sync,
    ) -> Result<Option<PgRow>> {
        let deadline = self.deadline();
        let mut connection = self.connection(operation, deadline).await?;
        let values = || values(Value::Millis(Some(patience(deadline))));
        let answer = async {
            match statement.fetch(&mut connection, &values()).await {
                Err(error) if is_conflict(&error) => {
                    statement.fetch_at_read_committed(&mut connection, &values()).await
                }
                result => result,
            }
        };
        match timeout_at(deadline, answer).await {
            Ok(Ok(row)) => {
                self.shared.connections.put(connection);
                Ok(row)
            }
            Ok(Err(error)) => {
                self.shared.connections.distrust();
                Err(self.failed(operation, error))
            }
            Err(_) => {
                self.shared.connections.distrust();
                // The pool would wait for the answer before it lends this connection again.
                connection.close_on_drop();
                Err(timed_out(operation))
            }
        }
    }
}

/// Of a release, whose commit need not be on disk before the answer.
const LAZY_COMMIT: Value<'_> = Value::Text(Some("off"));

/// How long one operation may take, unless the builder says otherwise.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may have been idle to be used without a test.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("tables", self.tables())
            .field("command_timeout", &self.shared.command_timeout)
            .finish_non_exhaustive()
    }
}

impl Backend for PostgresBackend {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::new(Clock::Server).with_handoff();
        match &self.shared.notifications {
            Some(notifications) if notifications.are_heard() => capabilities.with_notifications(),
            // The statements notify whether this process listens or not.
            _ => capabilities.with_sent_notifications_only(),
        }
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let values = |patience| [key.into(), id.into(), Value::ttl(ttl), patience];
        let row = self.run(Operation::Acquire, &self.statements().acquire, values).await;
        row.and_then(|row| row::acquired(row, key, id)).map_err(|error| error.with_key(key))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let values = |patience| [lease.id().into(), Value::ttl(ttl), patience, lease.key().into()];
        let row = self.run(Operation::Extend, &self.statements().extend, values).await;
        let extended =
            row.and_then(|row| row.map(|row| row::extended(row, lease.id())).transpose());
        let extended = extended.map_err(|error| error.with_key(lease.key()))?;
        Ok(extended.map(|new| lease.clone().with_expires_at(new.expires_at())))
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let values = |patience| [lease.id().into(), LAZY_COMMIT, patience, lease.key().into()];
        let row = self.run(Operation::Release, &self.statements().release, values).await;
        row.map(|row| row.is_some()).map_err(|error| error.with_key(lease.key()))
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let values = |patience| [id.into(), Value::ttl(ttl), patience];
        let row = self.run(Operation::Extend, &self.statements().extend_by_id, values).await;
        row.and_then(|row| row.map(|row| row::extended(row, id)).transpose())
            .map_err(|error| error.with_id(id))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let values = |patience| [id.into(), LAZY_COMMIT, patience];
        let row = self.run(Operation::Release, &self.statements().release_by_id, values).await;
        row.map(|row| row.is_some()).map_err(|error| error.with_id(id))
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let found = self.look_up(Operation::Get, &self.statements().get, key.as_str());
        found.await.map_err(|error| error.with_key(key))
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let found = self.look_up(Operation::Find, &self.statements().find, id.as_str());
        found.await.map_err(|error| error.with_id(id))
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (from, key) = (lease.id().into(), lease.key().into());
        let values = |patience| [from, id.into(), Value::ttl(ttl), patience, key];
        let row = self.run(Operation::Handoff, &self.statements().handoff, values).await;
        row.and_then(|row| row.map(|row| row::handed_off(row, lease.key(), id)).transpose())
            .map_err(|error| error.with_key(lease.key()))
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let notifications = self.shared.notifications.as_ref();
        notifications.map_or_else(Notified::never, |notifications| notifications.notified(key))
    }
}

impl PostgresBackend {
    async fn look_up(
        &self,
        operation: Operation,
        statement: &Statement,
        name: &str,
    ) -> Result<Option<LockRecord>> {
        let row = self.run(operation, statement, |_| [Value::Text(Some(name))]).await?;
        row.map(|row| row::record(operation, row)).transpose()
    }
}

//! The backend: connections, statements, and their answers as the trait returns them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use syncguard_backend::Notified;
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Error, ErrorCode, Finding, Key, Lease, LockId,
    LockRecord, Operation, Result, Sent, Ttl,
};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::connections::{Borrowed, Connections, Purpose, Unconnected};
use crate::error::{Verdict, classify, closed, is_conflict, no_connection, timed_out, verdict};
use crate::names::Names;
use crate::notifications::Notifications;
use crate::operations::{Statement, Statements, Value, patience};
use crate::record;

/// Stores locks in a Postgres database.
///
/// Cloning is cheap, and clones share their connections. A held lock holds no connection. The
/// [crate page](crate) says what is stored, what survives a crash, and what an error means.
#[derive(Clone)]
pub struct PostgresBackend {
    shared: Arc<Shared>,
}

struct Shared {
    connections: Connections,
    names: Names,
    statements: Statements,
    command_timeout: Duration,
    /// `None` if they are off.
    notifications: Option<Notifications>,
    delete_trigger: bool,
}

/// The parts of a backend, which the builder has checked.
pub(crate) struct Parts {
    pub(crate) connections: Connections,
    pub(crate) names: Names,
    pub(crate) statements: Statements,
    pub(crate) command_timeout: Duration,
    pub(crate) notifications: Option<Notifications>,
    pub(crate) delete_trigger: bool,
}

impl PostgresBackend {
    pub(crate) fn of(parts: Parts) -> Self {
        let Parts { connections, names, statements, command_timeout, .. } = parts;
        let Parts { notifications, delete_trigger, .. } = parts;
        Self {
            shared: Arc::new(Shared {
                connections,
                names,
                statements,
                command_timeout,
                notifications,
                delete_trigger,
            }),
        }
    }

    /// Returns the pool that the backend was built on, or the one that
    /// [`connect`](Self::connect) made, for instance to begin a transaction for
    /// [`acquire_in`](Self::acquire_in).
    ///
    /// The backend takes no connection from it. It connects as the pool does, and stops when the pool
    /// is closed.
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
            let row = self.run(Operation::Configure, purge, &Sent::default(), values).await?;
            match row.map(|row| row.try_get::<i64, _>(0)).transpose() {
                Ok(None | Some(0)) => return Ok(total),
                Ok(Some(removed)) => total += u64::try_from(removed).unwrap_or(0),
                Err(error) => return Err(classify(Operation::Configure, self.names(), error)),
            }
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.shared.statements
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.shared.connections
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

    /// Lends a connection. Until it returns, nothing was sent.
    pub(crate) async fn borrow(
        &self,
        operation: Operation,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Borrowed> {
        Handle::try_current().map_err(|source| {
            Error::new(ErrorCode::InvalidArgument, operation)
                .with_message("called outside a tokio runtime: call it from a task of one")
                .with_source(source)
        })?;
        let connections = &self.shared.connections;
        match timeout_at(deadline, connections.take(purpose)).await {
            Ok(Ok(borrowed)) => Ok(borrowed),
            Ok(Err(Unconnected::Closed)) => Err(closed(operation)),
            Ok(Err(Unconnected::Refused(refusal))) => Err(refusal.into_error(operation)),
            Err(_) => Err(match connections.refusal() {
                Some(refusal) => refusal.into_error(operation),
                None => no_connection(operation),
            }),
        }
    }

    /// Gives a connection back, or closes it, as the answer to its statement says.
    pub(crate) fn answer<T>(
        &self,
        operation: Operation,
        borrowed: Borrowed,
        answer: Result<sqlx::Result<T>, Elapsed>,
    ) -> Result<T> {
        match answer {
            Ok(Ok(answer)) => {
                borrowed.give_back();
                Ok(answer)
            }
            Ok(Err(error)) => {
                match verdict(&error) {
                    Verdict::Keep => borrowed.give_back(),
                    Verdict::Close => borrowed.condemn(false),
                    Verdict::CloseAll => borrowed.condemn(true),
                }
                Err(classify(operation, self.names(), error))
            }
            Err(_) => {
                borrowed.condemn(false);
                Err(timed_out(operation))
            }
        }
    }

    /// Sends a statement, and once more if others have undone it: by a conflict, at a stricter
    /// isolation level than READ COMMITTED, or by filling up the notification queue at just that
    /// moment. Every single operation goes through here.
    ///
    /// Its values may include how long it may wait for a lock, which depends on how long it took to
    /// get the connection.
    async fn run<'a, const N: usize>(
        &self,
        operation: Operation,
        statement: &Statement,
        sent: &Sent,
        values: impl Fn(Value<'a>) -> [Value<'a>; N] + Send + Sync,
    ) -> Result<Option<PgRow>> {
        let purpose = match operation {
            Operation::Extend | Operation::Release | Operation::Handoff => Purpose::Lease,
            _ => Purpose::Attempt,
        };
        let deadline = self.deadline();
        let mut borrowed = self.borrow(operation, purpose, deadline).await?;
        let values = || values(Value::Millis(Some(patience(deadline))));
        let answer = async {
            let connection = borrowed.connection();
            sent.mark();
            match statement.fetch(connection, &values()).await {
                Err(error) if is_conflict(&error) => {
                    statement.fetch_at_read_committed(connection, &values()).await
                }
                result => result,
            }
        };
        let answer = timeout_at(deadline, answer).await;
        self.answer(operation, borrowed, answer)
    }
}

/// Of a release, whose commit need not be on disk before the answer.
const LAZY_COMMIT: Value<'_> = Value::Text(Some("off"));

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("names", self.names())
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
        self.acquire_marking(key, id, ttl, &Sent::default()).await
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        let values = |patience| [key.into(), id.into(), Value::ttl(ttl), patience];
        let row = self.run(Operation::Acquire, &self.statements().acquire, sent, values).await;
        row.and_then(|row| record::acquired(row, key, id)).map_err(|error| error.with_key(key))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let values = |patience| [lease.id().into(), Value::ttl(ttl), patience, lease.key().into()];
        let row =
            self.run(Operation::Extend, &self.statements().extend, &Sent::default(), values).await;
        let extended =
            row.and_then(|row| row.map(|row| record::extended(row, lease.id())).transpose());
        let extended = extended.map_err(|error| error.with_key(lease.key()))?;
        Ok(extended.map(|new| lease.clone().with_expires_at(new.expires_at())))
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let values = |patience| [lease.id().into(), LAZY_COMMIT, patience, lease.key().into()];
        let row = self
            .run(Operation::Release, &self.statements().release, &Sent::default(), values)
            .await;
        row.map(|row| row.is_some()).map_err(|error| error.with_key(lease.key()))
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let values = |patience| [id.into(), Value::ttl(ttl), patience];
        let row = self
            .run(Operation::Extend, &self.statements().extend_by_id, &Sent::default(), values)
            .await;
        row.and_then(|row| row.map(|row| record::extended(row, id)).transpose())
            .map_err(|error| error.with_id(id))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let values = |patience| [id.into(), LAZY_COMMIT, patience];
        let row = self
            .run(Operation::Release, &self.statements().release_by_id, &Sent::default(), values)
            .await;
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
        let row = self
            .run(Operation::Handoff, &self.statements().handoff, &Sent::default(), values)
            .await;
        row.and_then(|row| row.map(|row| record::handed_off(row, lease.key(), id)).transpose())
            .map_err(|error| error.with_key(lease.key()))
    }

    async fn preflight(&self) -> Vec<Finding> {
        self.check().await
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
        let row =
            self.run(operation, statement, &Sent::default(), |_| [Value::Text(Some(name))]).await?;
        row.map(|row| record::record(operation, row)).transpose()
    }
}

//! The backend: connections, statements, and their answers as the trait returns them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgPool;
use syncguard_backend::{GroupCommit, Notified};
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Finding, Key, Lease, LockId, LockRecord, Operation,
    Publication, Result, Sent, Ttl,
};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::connections::{Borrowed, Connections, Purpose};
use crate::database::Database;
use crate::error::classify;
use crate::groups::{Acquire, Extend, Groups};
use crate::names::Names;
use crate::notifications::Notifications;
use crate::operations::{Statement, Statements, Value};
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
    database: Arc<Database>,
    groups: Groups,
    /// `None` if they are off.
    notifications: Option<Notifications>,
    delete_trigger: bool,
}

/// The parts of a backend, which the builder has checked.
pub(crate) struct Parts {
    pub(crate) database: Database,
    pub(crate) group_commit: Option<GroupCommit>,
    pub(crate) notifications: Option<Notifications>,
    pub(crate) delete_trigger: bool,
}

impl PostgresBackend {
    pub(crate) fn of(parts: Parts) -> Self {
        let Parts { database, group_commit, notifications, delete_trigger } = parts;
        let database = Arc::new(database);
        let groups = Groups::new(&database, group_commit);
        Self { shared: Arc::new(Shared { database, groups, notifications, delete_trigger }) }
    }

    /// Returns the pool that the backend was built on, or the one that
    /// [`connect`](Self::connect) made, for instance to begin a transaction for
    /// [`acquire_in`](Self::acquire_in).
    ///
    /// The backend takes no connection from it. It connects as the pool does, and stops when the pool
    /// is closed.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.database().connections.pool()
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
            let purge = &self.statements().purge;
            let row = self.database().run(Operation::Configure, purge, values).await?;
            match row.map(|row| row.try_get::<i64, _>(0)).transpose() {
                Ok(None | Some(0)) => return Ok(total),
                Ok(Some(removed)) => total += u64::try_from(removed).unwrap_or(0),
                Err(error) => return Err(classify(Operation::Configure, self.names(), error)),
            }
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.database().names
    }

    pub(crate) fn statements(&self) -> &Statements {
        &self.database().statements
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.database().connections
    }

    pub(crate) fn has_delete_trigger(&self) -> bool {
        self.shared.delete_trigger
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.database().command_timeout
    }

    /// When an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        self.database().deadline()
    }

    pub(crate) async fn borrow(
        &self,
        operation: Operation,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Borrowed> {
        self.database().borrow(operation, purpose, deadline).await
    }

    pub(crate) fn answer<T>(
        &self,
        operation: Operation,
        borrowed: Borrowed,
        answer: Result<sqlx::Result<T>, Elapsed>,
    ) -> Result<T> {
        self.database().answer(operation, borrowed, answer)
    }

    fn database(&self) -> &Arc<Database> {
        &self.shared.database
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("names", self.names())
            .field("command_timeout", &self.command_timeout())
            .finish_non_exhaustive()
    }
}

impl Backend for PostgresBackend {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::new(Clock::Server).with_handoff().with_publishing();
        match &self.shared.notifications {
            Some(notifications) if notifications.arrive() => capabilities.with_notifications(),
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
        let attempt = Acquire { key: key.clone(), id: id.clone(), ttl };
        let acquired = self.shared.groups.acquires.run(attempt, sent).await;
        acquired.map_err(|error| error.with_key(key))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let renewal = Extend { lease: lease.clone(), ttl };
        let extended = self.shared.groups.extends.run(renewal, &Sent::default()).await;
        extended.map_err(|error| error.with_key(lease.key()))
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let released = self.shared.groups.releases.run(lease.clone(), &Sent::default()).await;
        released.map_err(|error| error.with_key(lease.key()))
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let values = |patience| [id.into(), Value::ttl(ttl), patience];
        let row =
            self.database().run(Operation::Extend, &self.statements().extend_by_id, values).await;
        row.and_then(|row| row.map(|row| record::extended(row, id)).transpose())
            .map_err(|error| error.with_id(id))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let values = |patience| [id.into(), Value::LAZY_COMMIT, patience];
        let row =
            self.database().run(Operation::Release, &self.statements().release_by_id, values).await;
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
        let row = self.database().run(Operation::Handoff, &self.statements().handoff, values).await;
        row.and_then(|row| row.map(|row| record::handed_off(row, lease.key(), id)).transpose())
            .map_err(|error| error.with_key(lease.key()))
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        let key = lease.key();
        let fence = Value::Fence(publication.fence());
        let (candidate, value) = (publication.candidate(), publication.value());
        let (candidate, value) = (Value::Text(Some(candidate)), Value::Bytes(value));
        let values = |patience| [key.into(), fence, candidate, value, Value::ttl(ttl), patience];
        let row = self.database().run(Operation::Publish, &self.statements().publish, values).await;
        row.map(|row| row.is_some()).map_err(|error| error.with_key(key))
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let values = |patience| [lease.key().into(), Value::Fence(lease.fence()), patience];
        let row =
            self.database().run(Operation::Withdraw, &self.statements().withdraw, values).await;
        row.map(drop).map_err(|error| error.with_key(lease.key()))
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let published = &self.statements().published;
        let row = self.database().run(Operation::Published, published, |_| [key.into()]).await;
        row.and_then(|row| row.map(record::publication).transpose())
            .map_err(|error| error.with_key(key))
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
        let row = self.database().run(operation, statement, |_| [Value::Text(Some(name))]).await?;
        row.map(|row| record::record(operation, row)).transpose()
    }
}

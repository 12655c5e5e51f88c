//! The settings of a backend.

mod build;

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use syncguard_backend::GroupCommit;

use crate::backend::PostgresBackend;
use crate::groups;
use crate::names::{FENCE_TABLE, LOCK_TABLE};

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
    /// 4 lanes and 32 operations. A value of 0 counts as 1.
    ///
    /// An operation that finds a free lane is sent at once and alone. Otherwise it waits until a statement
    /// is answered, and goes out with all others that wait. So a commit serves many locks when there is much
    /// to do, and nothing is delayed when there is not.
    ///
    /// Operations share more if the server is near, so that a statement can take less than a millisecond. If
    /// there are more callers than lanes, an operation then waits for the end of a statement even if a lane is
    /// free, for some milliseconds at most. The server has less work, and all are served earlier.
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
}

/// How long one operation may take, unless the builder says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

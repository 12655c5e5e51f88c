//! Settings, and the names of the tables.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_core::{Error, ErrorCode, Operation, Result};

use crate::PostgresBackend;
use crate::notifications::{NOT_HEARD, Notifications};
use crate::statement::Protocol;

/// Builds a [`PostgresBackend`] on a pool, with settings other than the defaults.
///
/// # Default
///
/// - Tables `syncguard_locks` and `syncguard_fence_counters`, as other SyncGuard clients name them.
/// - A command timeout of 5 seconds.
/// - Waiters are told of releases, over one more connection, and no trigger is set up.
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

impl PostgresBackendBuilder {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            lock_table: LOCK_TABLE.to_owned(),
            fence_table: FENCE_TABLE.to_owned(),
            command_timeout: COMMAND_TIMEOUT,
            notifications: true,
            listen_on: None,
            delete_trigger: false,
        }
    }

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

    /// Whether those who wait are told of releases, which takes one more connection while somebody
    /// waits. Without notifications they try again by timer. See [the crate](crate#waiting).
    ///
    /// Other processes are told of the releases of this one either way.
    pub fn notifications(mut self, notifications: bool) -> Self {
        self.notifications = notifications;
        self
    }

    /// Connects to the server this way to be told of releases, instead of the way that the pool
    /// connects: for a pool behind a pooler in transaction mode, through which nothing can be heard.
    ///
    /// It must lead to the same database of the same primary server.
    pub fn listen_on(mut self, options: PgConnectOptions) -> Self {
        self.listen_on = Some(options);
        self
    }

    /// Makes [`setup_schema`](PostgresBackend::setup_schema) and
    /// [`schema_sql`](PostgresBackend::schema_sql) add a trigger to the lock table, which tells those
    /// who wait of the releases of other clients, too: a plain `DELETE`.
    ///
    /// For those who share locks with SyncGuard for TypeScript, whose releases tell nobody. The
    /// trigger is one for the table, whoever set it up, and costs each deletion a call of a
    /// PL/pgSQL function.
    pub fn delete_trigger(mut self, trigger: bool) -> Self {
        self.delete_trigger = trigger;
        self
    }

    /// Checks the settings. No connection is made.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] when a table name is no plain identifier
    /// (`^[a-zA-Z_][a-zA-Z0-9_]*$`), when it, or the name of an index made of it, is longer than the
    /// 63 bytes that Postgres keeps, when two names collide, or when the timeout is under 2 ms or over an hour.
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
            return Err(invalid("the command timeout is under 2 ms or over an hour"));
        }
        let tables = Tables::new(&lock_table, &fence_table)?;
        let notifications = notifications
            .then(|| notifications_of(&pool, listen_on, &tables, command_timeout))
            .flatten();
        Ok(PostgresBackend::on(pool, tables, command_timeout, notifications, delete_trigger))
    }
}

/// Notifications, unless the settings of the pool tell that nothing can be heard through it.
pub(crate) fn notifications_of(
    pool: &PgPool,
    listen_on: Option<PgConnectOptions>,
    tables: &Tables,
    limit: Duration,
) -> Option<Notifications> {
    if listen_on.is_none() && Protocol::of(pool) == Protocol::Simple {
        tracing::warn!("{NOT_HEARD}");
        return None;
    }
    Some(Notifications::new(pool.clone(), listen_on, tables.channel.clone(), limit))
}

pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// Half of it is still a limit that the server knows.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(2);

/// Far above any use, and far below what the server's limits and the clock can hold.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

const LOCK_TABLE: &str = "syncguard_locks";
const FENCE_TABLE: &str = "syncguard_fence_counters";

/// The longest name that Postgres does not cut off, in bytes.
const NAME_LIMIT: usize = 63;

/// The names of all tables and indexes, checked and quoted.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) locks: String,
    pub(crate) fences: String,
    pub(crate) lock_id_index: String,
    pub(crate) expires_index: String,
    /// The trigger and its function.
    pub(crate) freed: String,
    /// The same name without quotes, which is also that of the channel.
    pub(crate) channel: String,
}

impl Tables {
    fn new(locks: &str, fences: &str) -> Result<Self> {
        let tables = Self::quoted(locks, fences);
        let names = [&tables.locks, &tables.fences, &tables.lock_id_index, &tables.expires_index];
        for (n, name) in names.iter().enumerate() {
            let bare = name.trim_matches('"');
            if !is_identifier(bare) {
                return Err(invalid(
                    "a table name is letters, digits and underscores, and starts with no digit",
                ));
            }
            if bare.len() > NAME_LIMIT {
                return Err(invalid(
                    "a table name is too long: with its indexes, 51 bytes for locks and 63 for fences",
                ));
            }
            if names.iter().skip(n + 1).any(|other| other == name) {
                return Err(invalid("the tables and indexes must have different names"));
            }
        }
        Ok(tables)
    }

    fn quoted(locks: &str, fences: &str) -> Self {
        Self {
            locks: format!("\"{locks}\""),
            fences: format!("\"{fences}\""),
            lock_id_index: format!("\"idx_{locks}_lock_id\""),
            expires_index: format!("\"idx_{locks}_expires\""),
            freed: format!("\"{locks}_freed\""),
            channel: format!("{locks}_freed"),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::quoted(LOCK_TABLE, FENCE_TABLE)
    }
}

fn is_identifier(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_table_names_are_identifiers() {
        for name in ["a", "_", "Locks_2", &"x".repeat(51)] {
            assert!(Tables::new(name, "fences").is_ok(), "{name}");
        }
        for name in ["", "2locks", "a-b", "a.b", "a b", "a\"b", "a;b", "l\u{f6}cks", "a\0", "a\n"] {
            assert!(Tables::new(name, "fences").is_err(), "{name:?}");
            assert!(Tables::new("locks", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn e3_no_name_is_cut_off() {
        assert!(Tables::new(&"x".repeat(51), &"y".repeat(63)).is_ok());
        assert!(Tables::new(&"x".repeat(52), "fences").is_err());
        assert!(Tables::new("locks", &"y".repeat(64)).is_err());
    }

    #[test]
    fn e3_names_must_not_collide() {
        assert!(Tables::new("locks", "locks").is_err());
        assert!(Tables::new("locks", "idx_locks_lock_id").is_err());
        assert!(Tables::new("locks", "idx_locks_expires").is_err());
        assert!(Tables::new("locks", "LOCKS").is_ok());
    }

    #[tokio::test]
    async fn e3_the_command_timeout_has_bounds() {
        let pool = PgPool::connect_lazy("postgres://localhost").unwrap();
        let build =
            |limit| PostgresBackendBuilder::new(pool.clone()).command_timeout(limit).build();
        for limit in [SHORTEST_TIMEOUT, COMMAND_TIMEOUT, LONGEST_TIMEOUT] {
            assert!(build(limit).is_ok(), "{limit:?}");
        }
        let hour = Duration::from_secs(3600);
        for limit in [Duration::ZERO, Duration::from_millis(1), hour * 2, Duration::MAX] {
            let error = build(limit).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{limit:?}");
        }
    }

    #[test]
    fn the_default_names_pass_the_check() {
        let checked = Tables::new(LOCK_TABLE, FENCE_TABLE).unwrap();
        assert_eq!(checked.locks, Tables::default().locks);
    }
}

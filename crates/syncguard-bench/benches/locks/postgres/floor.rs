//! The same statements on bare connections of sqlx, and, for comparison, a session's advisory lock.
//! Such a lock writes nothing, holds its connection, and ends with it. Its waiters wait in the
//! server.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use syncguard_bench::Outcome;
use syncguard_core::LockId;
use syncguard_postgres::sqlx;

use crate::contestant::Contestant;

pub(super) const ROW_PER_GRANT: &str = "a row for each grant, bare sqlx";
pub(crate) const SESSION_LOCK: &str = "session advisory lock";

const LOCK_TIMEOUT_MS: i64 = 2_500;

pub(super) fn same_statements(url: &str) -> Contestant {
    let connections = Connections::new(url);
    let acquire =
        render(include_str!("../../../../syncguard-postgres/src/operations/sql/acquire.sql"));
    let release =
        render(include_str!("../../../../syncguard-postgres/src/operations/sql/release.sql"));
    Contestant::new("same statements, bare sqlx", move |key| {
        let (connections, acquire, release) =
            (connections.clone(), acquire.clone(), release.clone());
        async move {
            let mut connection = connections.take().await?;
            let (key, id) = (format!("bare:{key}"), LockId::random()?);
            sqlx::query(AssertSqlSafe(acquire))
                .bind(&key)
                .bind(id.as_str())
                .bind(30_000_i64)
                .bind(LOCK_TIMEOUT_MS)
                .fetch_one(&mut connection)
                .await?;
            Ok(async move {
                sqlx::query(AssertSqlSafe(release))
                    .bind(id.as_str())
                    .bind("off")
                    .bind(LOCK_TIMEOUT_MS)
                    .bind(&key)
                    .fetch_one(&mut connection)
                    .await?;
                connections.put(connection);
                Ok(())
            })
        }
    })
}

/// The least that a lease in a table costs, even with handoffs: one row on disk for each grant. It
/// has no id, no TTL and no loss, and no release, because other processes would not notice one.
pub(super) fn row_per_grant(url: &str) -> Contestant {
    let (url, connection) = (Arc::<str>::from(url), Arc::default());
    Contestant::new(ROW_PER_GRANT, move |key| {
        let (url, connection) = (url.clone(), Arc::<tokio::sync::Mutex<_>>::clone(&connection));
        async move {
            let mut connection = connection.lock_owned().await;
            let connection_in_use = match &mut *connection {
                Some(connection) => connection,
                unconnected => unconnected.insert(PgConnection::connect(&url).await?),
            };
            sqlx::query(
                "INSERT INTO syncguard_fence_counters AS f (fence_key, fence, key_debug) \
                 VALUES ($1, 1, $1) ON CONFLICT (fence_key) DO UPDATE SET fence = f.fence + 1",
            )
            .bind(format!("bare:{key}"))
            .execute(connection_in_use)
            .await?;
            Ok(async move {
                drop(connection);
                Ok(())
            })
        }
    })
}

pub(super) fn session_lock(url: &str) -> Contestant {
    let connections = Connections::new(url);
    Contestant::new(SESSION_LOCK, move |key| {
        let connections = connections.clone();
        async move {
            let mut connection = connections.take().await?;
            sqlx::query("SELECT pg_advisory_lock(hashtext($1))")
                .bind(&key)
                .execute(&mut connection)
                .await?;
            Ok(async move {
                sqlx::query("SELECT pg_advisory_unlock(hashtext($1))")
                    .bind(&key)
                    .execute(&mut connection)
                    .await?;
                connections.put(connection);
                Ok(())
            })
        }
    })
}

/// One connection per task, without a pool.
#[derive(Clone)]
struct Connections {
    url: Arc<str>,
    idle: Arc<Mutex<Vec<PgConnection>>>,
}

impl Connections {
    fn new(url: &str) -> Self {
        Self { url: url.into(), idle: Arc::default() }
    }

    async fn take(&self) -> Outcome<PgConnection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => Ok(PgConnection::connect(&self.url).await?),
        }
    }

    fn put(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

fn render(template: &str) -> Arc<str> {
    let text = template
        .replace("{the_lease}", "l.key = $4 AND l.lock_id = $1")
        .replace(
            "{turn}",
            "SELECT pg_advisory_xact_lock(hashtext($1)) FROM patience \
             WHERE NOT EXISTS (SELECT FROM held)",
        )
        .replace("{lock_the_row}", "FOR UPDATE OF l")
        .replace("{now}", "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .replace("{locks}", "syncguard_locks")
        .replace("{fences}", "syncguard_fence_counters")
        .replace("{channel}", "syncguard_locks_freed")
        .replace("{max_fence}", "900000000000000");
    Arc::from(text)
}

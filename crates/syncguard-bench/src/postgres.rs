//! Postgres: beside the same statements on bare connections of sqlx, and, for scale, a session's own
//! advisory lock.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use syncguard_core::LockId;
use syncguard_postgres::{LockManager, PostgresBackend, sqlx};
use tokio::sync::Mutex;

use crate::measure::{Contestant, Outcome, compare, locks_of, task_of};

const TASKS: [usize; 3] = [1, 16, 64];
const LOCK_TIMEOUT_MS: i64 = 2_500;

pub(crate) async fn run(url: &str) -> Outcome {
    // More connections than tasks, as a busy service should have.
    let pool = PostgresBackend::pool_options().max_connections(70).connect(url).await?;
    let backend = PostgresBackend::new(pool);
    backend.setup_schema().await?;
    let [_, _, most] = TASKS;
    let bare = Bare::connect(url, most).await?;
    let for_scale = bare.clone();

    println!("Postgres: acquire and release");
    let contestants = [
        Contestant::new("same statements, bare sqlx", move |key| {
            let bare = bare.clone();
            async move { bare.acquire_and_release(&key).await }
        }),
        locks_of("backend alone", &backend)?,
        Contestant::of(LockManager::new(backend)),
        Contestant::new("session advisory lock", move |key| {
            let bare = for_scale.clone();
            async move { bare.advisory_lock(&key).await }
        }),
    ];
    compare(&contestants, &TASKS).await
}

/// A connection for each task, without a pool.
#[derive(Clone)]
struct Bare {
    connections: Arc<Vec<Mutex<PgConnection>>>,
    acquire: Arc<str>,
    release: Arc<str>,
}

impl Bare {
    async fn connect(url: &str, tasks: usize) -> Outcome<Self> {
        let mut connections = Vec::new();
        for _ in 0..tasks {
            connections.push(Mutex::new(PgConnection::connect(url).await?));
        }
        Ok(Self {
            connections: Arc::new(connections),
            acquire: render(include_str!("../../syncguard-postgres/src/sql/acquire.sql")),
            release: render(include_str!("../../syncguard-postgres/src/sql/release.sql")),
        })
    }

    async fn acquire_and_release(&self, key: &str) -> Outcome {
        let mut connection = self.connections[task_of(key)].lock().await;
        let id = LockId::random()?;
        sqlx::query(AssertSqlSafe(self.acquire.clone()))
            .bind(format!("bare:{key}"))
            .bind(id.as_str())
            .bind(30_000_i64)
            .bind(LOCK_TIMEOUT_MS)
            .fetch_one(&mut *connection)
            .await?;
        sqlx::query(AssertSqlSafe(self.release.clone()))
            .bind(id.as_str())
            .bind("off")
            .bind(LOCK_TIMEOUT_MS)
            .fetch_one(&mut *connection)
            .await?;
        Ok(())
    }

    async fn advisory_lock(&self, key: &str) -> Outcome {
        let mut connection = self.connections[task_of(key)].lock().await;
        for statement in
            ["SELECT pg_advisory_lock(hashtext($1))", "SELECT pg_advisory_unlock(hashtext($1))"]
        {
            sqlx::query(statement).bind(key).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

fn render(template: &str) -> Arc<str> {
    let text = template
        .replace("{now}", "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .replace("{locks}", "syncguard_locks")
        .replace("{fences}", "syncguard_fence_counters")
        .replace("{channel}", "syncguard_locks_freed")
        .replace("{max_fence}", "900000000000000");
    Arc::from(text)
}

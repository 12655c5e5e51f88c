//! The tables: how they are created, which permissions they need, and bad rows.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::sqlx::postgres::PgPool;
use syncguard_postgres::sqlx::{self, AssertSqlSafe};
use syncguard_postgres::{Backend, ErrorCode, PostgresBackend};
use tokio::task::JoinSet;

use super::faults::{connected, pid, waiting};
use super::{
    Outcome, PATIENCE, as_user, cases, empty_schema, end_in, execute, fresh_id, fresh_key, lease,
    minute, pool_of,
};
use contract_tests::servers::Server;

cases![
    eight_processes_set_up_the_schema_at_once,
    tables_of_the_other_client_stay_unchanged,
    a_complete_schema_needs_no_permission_to_create,
    a_set_up_that_timed_out_creates_nothing_later,
    the_schema_sql_works_as_a_migration,
    an_error_for_missing_tables_names_them_and_the_remedy,
    tables_may_have_other_names,
    e2_foreign_rows_are_internal_and_never_a_grant,
    a6_an_exhausted_counter_is_refused_before_any_write,
    a_purge_removes_only_rows_that_are_long_dead,
];

async fn eight_processes_set_up_the_schema_at_once(server: Arc<Server>) -> Outcome {
    for _ in 0..5 {
        let (pool, schema) = empty_schema(&server).await?;
        let mut processes = JoinSet::new();
        for _ in 0..8 {
            let options = sqlx::postgres::PgConnectOptions::clone(&pool.connect_options());
            processes.spawn(async move {
                // Eight new connections at once take their time on a busy machine.
                let pool = pool_of(1).connect_lazy_with(options);
                let backend = PostgresBackend::builder().command_timeout(PATIENCE).build(pool)?;
                backend.setup_schema().await?;
                lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)
            });
        }
        while let Some(process) = processes.join_next().await {
            assert!(process??.is_some());
        }
        assert_eq!(objects(&pool, &schema).await?, 8);
    }
    Ok(())
}

/// Counts the objects in the schema: three tables, their primary keys, and two more indexes.
async fn objects(pool: &PgPool, schema: &str) -> sqlx::Result<i64> {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::regnamespace";
    sqlx::query_scalar(sql).bind(schema).fetch_one(pool).await
}

/// The tables as the TypeScript client creates them: without quotes and without generated columns.
const OTHER_CLIENTS_TABLES: &str = "
    CREATE TABLE syncguard_locks (key TEXT PRIMARY KEY, lock_id TEXT NOT NULL,
        expires_at_ms BIGINT NOT NULL, acquired_at_ms BIGINT NOT NULL, fence TEXT NOT NULL,
        user_key TEXT NOT NULL);
    CREATE UNIQUE INDEX idx_syncguard_locks_lock_id ON syncguard_locks (lock_id);
    CREATE INDEX idx_syncguard_locks_expires ON syncguard_locks (expires_at_ms);
    CREATE TABLE syncguard_fence_counters (fence_key TEXT PRIMARY KEY,
        fence BIGINT NOT NULL DEFAULT 0, key_debug TEXT)";

async fn columns(pool: &PgPool, schema: &str) -> sqlx::Result<i64> {
    let sql = "SELECT count(*) FROM information_schema.columns WHERE table_schema = $1";
    sqlx::query_scalar(sql).bind(schema).fetch_one(pool).await
}

async fn tables_of_the_other_client_stay_unchanged(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    execute(&pool, OTHER_CLIENTS_TABLES).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    assert_eq!((objects(&pool, &schema).await?, columns(&pool, &schema).await?), (8, 14));

    // A second set-up adds missing objects.
    execute(&pool, "DROP INDEX idx_syncguard_locks_expires; DROP TABLE syncguard_fence_counters")
        .await?;
    backend.setup_schema().await?;
    assert_eq!((objects(&pool, &schema).await?, columns(&pool, &schema).await?), (8, 14));

    let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("free");
    assert!(backend.extend(&held, minute()).await?.is_some());
    assert!(backend.release(&held).await?);
    Ok(())
}

async fn a_complete_schema_needs_no_permission_to_create(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let user = format!("{schema}_user");
    execute(&pool, format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await?;
    execute(&pool, format!("GRANT USAGE ON SCHEMA {schema} TO {user}")).await?;
    let options = as_user(&pool.connect_options(), &user);
    let guest = super::patient(pool_of(2).connect_lazy_with(options))?;

    let refused = guest.setup_schema().await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AuthFailed, "{refused}");

    super::patient(pool.clone())?.setup_schema().await?;
    guest.setup_schema().await?;
    let refused = guest.get(&fresh_key()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::AuthFailed, "{refused}");

    let tables = "syncguard_locks, syncguard_fence_counters";
    execute(&pool, format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {user}")).await?;
    let held = lease(guest.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("free");
    assert!(guest.release(&held).await?);
    Ok(())
}

async fn a_set_up_that_timed_out_creates_nothing_later(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let mut other = pool.begin().await?;
    let pid = pid(&mut other).await?;
    sqlx::query("CREATE TABLE syncguard_locks (key TEXT)").execute(&mut *other).await?;
    let hasty = PostgresBackend::builder().command_timeout(Duration::from_secs(4));
    let hasty = hasty.build(pool.clone())?;
    connected(&hasty).await;
    let error = hasty.setup_schema().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    assert_eq!(waiting(&pool, pid).await?, 0);
    other.rollback().await?;
    assert_eq!(objects(&pool, &schema).await?, 0);
    Ok(())
}

async fn the_schema_sql_works_as_a_migration(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    let backend = PostgresBackend::builder()
        .command_timeout(PATIENCE)
        .lock_table("Jobs")
        .build(pool.clone())?;
    execute(&pool, backend.schema_sql()).await?;
    execute(&pool, backend.schema_sql()).await?;
    assert_eq!(objects(&pool, &schema).await?, 8);
    assert!(lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?.is_some());
    let times = "SELECT extract(epoch FROM expires_at_ts) * 1000 = expires_at_ms \
        AND extract(epoch FROM acquired_at_ts) * 1000 = acquired_at_ms FROM \"Jobs\"";
    let exact: bool = sqlx::query_scalar(AssertSqlSafe(times)).fetch_one(&pool).await?;
    assert!(exact, "the readable timestamp columns show another time");
    Ok(())
}

async fn an_error_for_missing_tables_names_them_and_the_remedy(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = PostgresBackend::builder()
        .command_timeout(PATIENCE)
        .lock_table("jobs")
        .fence_table("f")
        .build(pool)?;
    let (key, id) = (fresh_key(), fresh_id());
    let errors = [
        backend.acquire(&key, &id, minute()).await.unwrap_err(),
        backend.extend_by_id(&id, minute()).await.unwrap_err(),
        backend.release_by_id(&id).await.unwrap_err(),
        backend.get(&key).await.unwrap_err(),
        backend.find(&id).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        let text = error.to_string();
        assert!(text.contains("\"jobs\"") && text.contains("setup_schema"), "{text}");
    }
    Ok(())
}

async fn tables_may_have_other_names(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let (long, longer) = ("L".repeat(51), "f".repeat(63));
    let backend =
        PostgresBackend::builder().command_timeout(PATIENCE).lock_table(&long).fence_table(&longer);
    let backend = backend.build(pool.clone())?;
    let other = super::patient(pool)?;
    backend.setup_schema().await?;
    other.setup_schema().await?;
    let key = fresh_key();
    for backend in [&backend, &other] {
        let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
        assert_eq!(held.fence().get(), 1);
    }
    Ok(())
}

async fn e2_foreign_rows_are_internal_and_never_a_grant(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    for (column, value) in [
        ("fence", "'seven'"),
        ("fence", "'1'"),
        ("lock_id", "'not an id'"),
        ("user_key", "''"),
        ("acquired_at_ms", "-1"),
        ("expires_at_ms", "9223372036854775807"),
    ] {
        let key = fresh_key();
        lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
        let sql = format!("UPDATE syncguard_locks SET {column} = {value} WHERE key = $1");
        let changed = sqlx::query(AssertSqlSafe(sql)).bind(key.as_str()).execute(&pool).await;
        // The readable timestamp columns reject a number that is no timestamp.
        if changed.is_err() {
            assert_eq!(column, "expires_at_ms");
            continue;
        }
        let error = backend.get(&key).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{column} {value}: {error}");
        assert!(lease(backend.acquire(&key, &fresh_id(), minute()).await)?.is_none());
    }
    Ok(())
}

async fn a6_an_exhausted_counter_is_refused_before_any_write(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    for (counter, granted) in [(899_999_999_999_999_i64, true), (-7, false), (i64::MAX, false)] {
        let (key, id) = (fresh_key(), fresh_id());
        let row = sqlx::query("INSERT INTO syncguard_fence_counters VALUES ('fence:' || $1, $2)");
        row.bind(key.as_str()).bind(counter).execute(&pool).await?;
        if granted {
            let last = lease(backend.acquire(&key, &id, minute()).await)?.expect("free");
            assert_eq!(last.fence().get(), 900_000_000_000_000);
            assert!(backend.release(&last).await?);
        }
        let error = backend.acquire(&key, &id, minute()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{error}");
        assert_eq!(backend.get(&key).await?, None);
        let left: i64 = sqlx::query_scalar(
            "SELECT fence FROM syncguard_fence_counters WHERE fence_key = 'fence:' || $1",
        )
        .bind(key.as_str())
        .fetch_one(&pool)
        .await?;
        assert_eq!(left, counter + i64::from(granted));
    }
    Ok(())
}

async fn a_purge_removes_only_rows_that_are_long_dead(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    // Milliseconds until the lease is dead, which is one second after it expires.
    for end in [60_000, -500, -10_000, -100_000] {
        let key = fresh_key();
        lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
        end_in(&pool, &key, end).await?;
    }
    assert_eq!(backend.purge_expired(Duration::MAX).await?, 0);
    assert_eq!(backend.purge_expired(Duration::from_secs(60)).await?, 1);
    assert_eq!(backend.purge_expired(Duration::from_secs(8)).await?, 1);
    execute(
        &pool,
        "INSERT INTO syncguard_locks SELECT 'k' || n, 'i' || n, 0, 0, '', '' \
         FROM generate_series(1, 2500) n",
    )
    .await?;
    assert!(backend.purge_expired(Duration::from_secs(60)).await? == 2_500);
    let left = |table: &str| format!("SELECT count(*) FROM syncguard_{table}");
    let locks: i64 = sqlx::query_scalar(AssertSqlSafe(left("locks"))).fetch_one(&pool).await?;
    let counters = sqlx::query_scalar(AssertSqlSafe(left("fence_counters")));
    assert_eq!((locks, counters.fetch_one(&pool).await?), (2, 4_i64));
    Ok(())
}

//! What a leader publishes: its table, a database without that table, and rows that cannot be read.

use std::sync::Arc;

use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_postgres::sqlx::{self, AssertSqlSafe};
use syncguard_postgres::{Backend, ErrorCode, Lease, Level, PostgresBackend, Publication};

use super::{
    Outcome, as_user, cases, empty_schema, execute, fresh_id, fresh_key, lease, minute, patient,
    pool_of,
};
use contract_tests::servers::Server;

cases![
    locks_work_without_the_table_of_leaders,
    locks_work_without_a_right_on_the_table_of_leaders,
    e2_a_row_that_cannot_be_read_is_internal_and_is_replaced,
    each_lock_table_has_leaders_of_its_own,
];

fn publication(lease: &Lease) -> Publication {
    Publication::new(lease.fence(), "node", "value").unwrap()
}

async fn take(backend: &PostgresBackend) -> Outcome<Lease> {
    Ok(lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("it was free"))
}

/// Publishing fails with this code, and a held lease keeps its session.
async fn refused(pool: &PgPool, code: ErrorCode, text: &str) -> Outcome {
    let name = format!("p{}", fresh_id().fingerprint());
    let options = PgConnectOptions::clone(&pool.connect_options()).application_name(&name);
    let backend = patient(pool_of(1).connect_lazy_with(options))?;
    let held = take(&backend).await?;
    let sql = format!("SELECT min(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    let session = async || sqlx::query_scalar(AssertSqlSafe(sql.as_str())).fetch_one(pool).await;
    let before: i32 = session().await?;
    for error in [
        backend.publish(&held, &publication(&held), minute()).await.unwrap_err(),
        backend.published(held.key()).await.unwrap_err(),
        backend.withdraw(&held).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.key(), Some(held.key().fingerprint()));
        assert!(backend.extend(&held, minute()).await?.is_some());
        assert_eq!(session().await?, before, "the session was replaced");
    }
    assert!(backend.release(&held).await?);
    Ok(())
}

async fn level(backend: &PostgresBackend, code: &str) -> Option<Level> {
    let findings = backend.preflight().await;
    findings.iter().find(|finding| finding.code() == code).map(|finding| finding.level())
}

/// As after a set-up by SyncGuard for TypeScript.
async fn locks_work_without_the_table_of_leaders(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = patient(pool.clone())?;
    backend.setup_schema().await?;
    execute(&pool, "DROP TABLE syncguard_leaders").await?;
    refused(&pool, ErrorCode::InvalidArgument, "setup_schema").await?;
    assert_eq!(level(&backend, "tables").await, Some(Level::Fine));
    assert_eq!(level(&backend, "leader-table").await, Some(Level::Warning));

    backend.setup_schema().await?;
    let held = take(&backend).await?;
    assert!(backend.publish(&held, &publication(&held), minute()).await?);
    assert_eq!(backend.published(held.key()).await?, Some(publication(&held)));
    assert_eq!(level(&backend, "leader-table").await, Some(Level::Fine));
    Ok(())
}

async fn locks_work_without_a_right_on_the_table_of_leaders(server: Arc<Server>) -> Outcome {
    let (pool, schema) = empty_schema(&server).await?;
    patient(pool.clone())?.setup_schema().await?;
    let user = format!("{schema}_user");
    execute(
        &pool,
        format!(
            "CREATE ROLE {user} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA {schema} TO {user}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON syncguard_locks, syncguard_fence_counters TO {user}"
        ),
    )
    .await?;
    let options = as_user(&pool.connect_options(), &user);
    let pool = pool_of(2).connect_lazy_with(options);
    refused(&pool, ErrorCode::AuthFailed, "syncguard_leaders").await?;
    let guest = patient(pool)?;
    assert_eq!(level(&guest, "privileges").await, Some(Level::Fine));
    assert_eq!(level(&guest, "leader-table").await, Some(Level::Warning));
    Ok(())
}

async fn e2_a_row_that_cannot_be_read_is_internal_and_is_replaced(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    for capacity in [0, 100] {
        let options = PgConnectOptions::clone(&pool.connect_options());
        // The text form of bytes depends on this setting.
        let options = options.options([("bytea_output", "escape")]);
        let options = options.statement_cache_capacity(capacity);
        let backend = patient(pool_of(2).connect_lazy_with(options))?;
        backend.setup_schema().await?;
        for (change, outranks) in [
            ("fence = -1", false),
            ("fence = 1000000000000000", false),
            ("candidate = repeat('x', 257)", false),
            ("value = decode(repeat('00', 4097), 'hex')", false),
            ("candidate = repeat('x', 257), fence = 9", true),
        ] {
            let held = take(&backend).await?;
            assert!(backend.publish(&held, &publication(&held), minute()).await?);
            let sql = format!("UPDATE syncguard_leaders SET {change} WHERE key = $1");
            let spoil = async || {
                let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind(held.key().as_str());
                query.execute(&pool).await
            };
            spoil().await?;
            let error = backend.published(held.key()).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::Internal, "{change}: {error}");
            let stored = backend.publish(&held, &publication(&held), minute()).await?;
            assert_eq!(stored, !outranks, "{change}");
            spoil().await?;
            backend.withdraw(&held).await?;
            let left = backend.published(held.key()).await;
            assert_eq!(left.is_err(), outranks, "{change}: {left:?}");
        }
    }
    Ok(())
}

async fn each_lock_table_has_leaders_of_its_own(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let of = |table| PostgresBackend::builder().lock_table(table).command_timeout(super::PATIENCE);
    let jobs = of("Jobs").build(pool.clone())?;
    let orders = of("orders").leader_table("Chiefs").build(pool.clone())?;
    jobs.setup_schema().await?;
    orders.setup_schema().await?;
    let held = take(&jobs).await?;
    assert!(jobs.publish(&held, &publication(&held), minute()).await?);
    assert_eq!(orders.published(held.key()).await?, None);
    let other = Publication::new(held.fence(), "other", "").unwrap();
    assert!(orders.publish(&held, &other, minute()).await?);
    assert_eq!(jobs.published(held.key()).await?, Some(publication(&held)));
    let count = "SELECT (SELECT count(*) FROM \"Jobs_leaders\"), (SELECT count(*) FROM \"Chiefs\")";
    let counts: (i64, i64) = sqlx::query_as(count).fetch_one(&pool).await?;
    assert_eq!(counts, (1, 1));
    Ok(())
}

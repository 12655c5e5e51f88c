//! A lease is found by index in a large table of few leases, also if the table was small at first.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::Backend;
use syncguard_postgres::sqlx::{AssertSqlSafe, PgPool, query};
use tokio::time::sleep;

use super::notifications::Fixture;
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use contract_tests::servers::Server;

cases![
    a_lease_in_a_bloated_table_is_found_by_its_key,
    a_plan_for_a_small_table_is_not_kept_while_the_table_grows,
];

async fn a_lease_in_a_bloated_table_is_found_by_its_key(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    bloat(&fixture).await?;
    let before = settled(&fixture).await?;
    let name = format!("plans_{}", fresh_id().fingerprint());
    let pool = pool_of(1).connect_lazy_with(fixture.options().application_name(&name));
    let backend = fixture.named().notifications(false).build(pool.clone())?;
    let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
    let held = held.expect("it was free");
    assert!(backend.extend(&held, minute()).await?.is_some());
    let held = backend.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
    assert!(backend.release(&held).await?);
    assert_eq!(reported(&fixture, &pool, &name).await? - before, 0);
    Ok(())
}

async fn a_plan_for_a_small_table_is_not_kept_while_the_table_grows(
    server: Arc<Server>,
) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let table = &fixture.table;
    // Before the first of these, the planner takes an empty table for one of ten pages.
    for sql in [leave_dead_rows(table), format!("VACUUM ANALYZE {table}")] {
        query(AssertSqlSafe(sql)).execute(&fixture.pool).await?;
    }
    let name = format!("plans_{}", fresh_id().fingerprint());
    let pool = pool_of(1).connect_lazy_with(fixture.options().application_name(&name));
    let backend = fixture.named().notifications(false).build(pool.clone())?;
    let cycle = async || -> Outcome {
        let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
        assert!(backend.release(&held.expect("it was free")).await?);
        Ok(())
    };
    // A session keeps the plan of a statement after five that were made for its values.
    for _ in 0..10 {
        cycle().await?;
    }
    let before = settled(&fixture).await?;
    for sql in [fill(table), format!("DELETE FROM {table}")] {
        query(AssertSqlSafe(sql)).execute(&fixture.pool).await?;
    }
    for _ in 0..CYCLES {
        cycle().await?;
    }
    let scans = reported(&fixture, &pool, &name).await? - before;
    // Two statements of each cycle find the lease. The table is small for some of the first ones only.
    assert!(scans < CYCLES, "{scans} scans");
    Ok(())
}

const CYCLES: i64 = 3_000;

/// Returns the number of sequential scans after the sessions of this pool have ended.
///
/// A session reports its statistics when it ends. One scan of another session shows that they count, and is
/// not part of the result.
async fn reported(fixture: &Fixture, pool: &PgPool, name: &str) -> Outcome<i64> {
    pool.close().await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND $1 <> ''"
    );
    fixture.until(&sessions, 0).await?;
    let before = settled(fixture).await?;
    let scan = format!("SELECT count(user_key) FROM {}", fixture.table);
    // Workers would count as well.
    let alone = fixture.options().options([("max_parallel_workers_per_gather", "0")]);
    let pool = pool_of(1).connect_lazy_with(alone);
    query(AssertSqlSafe(scan)).execute(&pool).await?;
    pool.close().await;
    let after = settled(fixture).await?;
    assert!(after > before);
    Ok(after - 1)
}

/// Returns the number of sequential scans, when it no longer changes. Up to version 14, sessions report
/// twice a second at most, and at the end of a transaction. So the first query here may be the one that lets
/// its own session report, and the third one sees it.
async fn settled(fixture: &Fixture) -> Outcome<i64> {
    let (mut scans, mut seen) = (fixture.number(SCANS).await?, 1);
    while seen < 3 {
        sleep(Duration::from_millis(1_500)).await;
        let now = fixture.number(SCANS).await?;
        seen = if now == scans { seen + 1 } else { 1 };
        scans = now;
    }
    Ok(scans)
}

/// Leaves few rows in many pages, and an equally large index of ids. The index of keys is small,
/// because the same keys are used again and again.
async fn bloat(fixture: &Fixture) -> Outcome {
    let table = &fixture.table;
    let empty = format!("DELETE FROM {table} WHERE key NOT IN ('19999', '20000')");
    let rebuild = format!("REINDEX INDEX {table}_pkey");
    for sql in
        [leave_dead_rows(table), fill(table), empty, format!("VACUUM ANALYZE {table}"), rebuild]
    {
        query(AssertSqlSafe(sql)).execute(&fixture.pool).await?;
    }
    Ok(())
}

fn leave_dead_rows(table: &str) -> String {
    format!("ALTER TABLE {table} SET (autovacuum_enabled = false)")
}

fn fill(table: &str) -> String {
    format!(
        "INSERT INTO {table} (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key) \
         SELECT n, md5(n::text), 0, 0, '', '' FROM generate_series(1, 20000) AS n"
    )
}

const SCANS: &str = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1";

//! A lease is found by index in a table that held many leases before.

use std::sync::Arc;

use syncguard_postgres::sqlx::{AssertSqlSafe, query};
use syncguard_postgres::{Backend, Lease, PostgresBackend};

use super::notifications::Fixture;
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use contract_tests::servers::Server;

cases![a_lease_in_a_bloated_table_is_found_by_its_key];

async fn a_lease_in_a_bloated_table_is_found_by_its_key(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    bloat(&fixture).await?;
    let by_lease = async |backend: PostgresBackend, held: Lease| {
        assert!(backend.extend(&held, minute()).await?.is_some());
        let held = backend.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
        assert!(backend.release(&held).await?);
        Ok(())
    };
    let by_id = async |backend: PostgresBackend, held: Lease| {
        assert!(backend.release_by_id(held.id()).await?);
        Ok(())
    };
    assert_eq!(scans(&fixture, &[], by_lease).await?, 0);
    // This shows that scans are counted. Not every version scans without being told to.
    let without_indexes = [("enable_indexscan", "off"), ("enable_bitmapscan", "off")];
    assert!(scans(&fixture, &without_indexes, by_id).await? > 0);
    Ok(())
}

/// Leaves few rows in many pages, and an equally large index of ids. The index of keys is small,
/// because the same keys are used again and again.
async fn bloat(fixture: &Fixture) -> Outcome {
    let table = &fixture.table;
    let fill = format!(
        "INSERT INTO {table} (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key) \
         SELECT n, md5(n::text), 0, 0, '', '' FROM generate_series(1, 20000) AS n"
    );
    let empty = format!("DELETE FROM {table} WHERE key NOT IN ('19999', '20000')");
    let rebuild = format!("REINDEX INDEX {table}_pkey");
    let leave = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
    for sql in [leave, fill, empty, format!("VACUUM ANALYZE {table}"), rebuild] {
        query(AssertSqlSafe(sql)).execute(&fixture.pool).await?;
    }
    Ok(())
}

/// Returns the number of sequential scans of the table during `work` on a lease.
async fn scans(
    fixture: &Fixture,
    settings: &[(&str, &str)],
    work: impl AsyncFnOnce(PostgresBackend, Lease) -> Outcome,
) -> Outcome<i64> {
    let name = format!("plans_{}", fresh_id().fingerprint());
    let pool = pool_of(1).connect_lazy_with(fixture.options().application_name(&name).options(settings.iter().copied()));
    let backend = fixture.named().notifications(false).build(pool.clone())?;
    let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
    let before = fixture.number(SCANS).await?;
    work(backend, held.expect("it was free")).await?;
    // A session reports its last statistics when it ends.
    pool.close().await;
    let ended = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND $1 <> ''"
    );
    fixture.until(&ended, 0).await?;
    Ok(fixture.number(SCANS).await? - before)
}

const SCANS: &str = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1";

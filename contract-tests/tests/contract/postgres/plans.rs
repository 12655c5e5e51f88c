//! How a lease is found in a table where many came and went.

use std::sync::Arc;

use syncguard_postgres::sqlx::{AssertSqlSafe, query, query_scalar};
use syncguard_postgres::{Backend, Lease, PostgresBackend};

use super::notifications::Place;
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use contract_tests::servers::Server;

cases![a_lease_is_found_by_its_key_where_many_came_and_went];

async fn a_lease_is_found_by_its_key_where_many_came_and_went(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    bloat(&place).await?;
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
    assert_eq!(scans(&place, by_lease).await?, 0);
    // Else it would have shown nothing.
    assert!(scans(&place, by_id).await? > 0);
    Ok(())
}

/// Leaves few rows in many pages, and an index of ids that is as large; that of keys is small, since
/// the same keys come again and again.
async fn bloat(place: &Place) -> Outcome {
    let table = &place.table;
    let fill = format!(
        "INSERT INTO {table} (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key) \
         SELECT n, md5(n::text), 0, 0, '', '' FROM generate_series(1, 20000) AS n"
    );
    let empty = format!("DELETE FROM {table} WHERE key NOT IN ('19999', '20000')");
    let rebuild = format!("REINDEX INDEX {table}_pkey");
    let leave = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
    for sql in [leave, fill, empty, format!("VACUUM ANALYZE {table}"), rebuild] {
        query(AssertSqlSafe(sql)).execute(&place.pool).await?;
    }
    Ok(())
}

/// How often the whole table is read while something is done with a lease.
async fn scans(
    place: &Place,
    work: impl AsyncFnOnce(PostgresBackend, Lease) -> Outcome,
) -> Outcome<i64> {
    let pool = pool_of(1).connect_lazy_with(place.options());
    let backend = place.on(pool.clone()).notifications(false).build()?;
    let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
    let before = place.number(SCANS).await?;
    work(backend, held.expect("it was free")).await?;
    // A session reports the last of what it did when it ends.
    let session: i32 = query_scalar("SELECT pg_backend_pid()").fetch_one(&pool).await?;
    pool.close().await;
    let ended = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {session} AND $1 <> ''");
    place.until(&ended, 0).await?;
    Ok(place.number(SCANS).await? - before)
}

const SCANS: &str = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1";

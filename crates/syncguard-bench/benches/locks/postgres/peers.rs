//! Another library on Postgres.

use std::sync::Arc;

use distributed_lock_core::traits::{LockHandle, LockProviderExt};
use distributed_lock_postgres::PostgresLockProvider;
use sqlx_08::postgres::PgPoolOptions;
use syncguard_bench::Outcome;

use crate::contestant::{Contestant, PATIENCE};

pub(super) const DISTRIBUTED_LOCK: &str = "distributed-lock-postgres";

/// A session's advisory lock, which writes nothing. Each holder and each waiter needs a connection
/// of the pool, and first queues for one in the pool.
///
/// So the pool has a connection for each worker, if the server has that many, and does not test
/// connections before use. A grant is five statements, and its release is a sixth: begin,
/// savepoint, time limit, lock, commit, and then unlock.
pub(super) async fn distributed_lock(url: &str, connections: usize) -> Outcome<Contestant> {
    let pool = PgPoolOptions::new()
        .max_connections(u32::try_from(connections)?)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .connect(url)
        .await?;
    let provider = Arc::new(PostgresLockProvider::builder().pool(pool).build().await?);
    Ok(Contestant::new(DISTRIBUTED_LOCK, move |key| {
        let provider = provider.clone();
        async move {
            let handle = provider.acquire_lock(&key, Some(PATIENCE)).await?;
            Ok(async move {
                handle.release().await?;
                Ok(())
            })
        }
    }))
}

//! Another library on Postgres.

use std::sync::Arc;

use distributed_lock_core::traits::{LockHandle, LockProviderExt};
use distributed_lock_postgres::PostgresLockProvider;
use sqlx_08::postgres::PgPoolOptions;
use syncguard_bench::Outcome;

use crate::contestant::{Contestant, PATIENCE};

pub(super) const DISTRIBUTED_LOCK: &str = "distributed-lock-postgres";

/// A session's advisory lock: it writes nothing, and whoever waits for it or holds it has a
/// connection of the pool. Who finds none free waits in the pool's line first. So the pool has a
/// connection for each worker, as far as the server has them to give, and asks no connection whether
/// it is alive. A grant is five statements, and its end a sixth: begin, savepoint, time limit, lock,
/// commit; unlock.
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

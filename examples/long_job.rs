//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin long_job`
//!
//! A job that takes much longer than its lease. `run` renews the lease while the job works, and
//! stops the job when the lease is lost.

use std::time::Duration;

use syncguard_redis::{Error, ErrorCode, LockManager, RedisBackend};
use tokio::time::sleep;

/// Short, so that the example ends soon. In a service, 10 to 30 s suit most jobs.
const TTL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);

    match migrate(&locks).await {
        Err(error) if error.code() == ErrorCode::Lost => println!("the job was stopped: {error}"),
        other => other?,
    }
    locks.shutdown().await
}

async fn migrate(locks: &LockManager) -> Result<(), Error> {
    locks
        .lock("migrate:tenant-9")
        .ttl(TTL)
        .run(async |lock| -> Result<_, Error> {
            println!("the job holds the lock with fence {}", lock.fence());
            for step in 1..=20 {
                sleep(TTL / 2).await;
                println!("step {step} is done, the lease has {:?} left", lock.remaining());
                if step == 5 {
                    // Stands for the ways to lose a lease: an operator, a restart without data.
                    println!("somebody ends the lease");
                    locks.release_by_id(lock.id()).await?;
                }
            }
            Ok(())
        })
        .await
}

//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin long_job`
//!
//! A job that takes much longer than its lease: keep-alive renews it, and the job stops by itself
//! when the lease is lost.

use std::time::Duration;

use syncguard_redis::{Error, ErrorCode, LockManager, RedisBackend};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);

    let job = locks.lock("migrate:tenant-9").ttl(TTL).run(async |lock| -> Result<(), Error> {
        println!("the job holds the lock with fence {}", lock.fence());
        for step in 1.. {
            sleep(TTL / 2).await;
            println!("step {step} is done, the lease has {:?} left", lock.remaining());
            if step == 5 {
                // Stands for what takes a lease away: an operator, a restart without data.
                locks.release_by_id(lock.id()).await?;
                println!("somebody ends the lease");
            }
        }
        Ok(())
    });
    match job.await {
        Err(error) if error.code() == ErrorCode::Lost => println!("the job was stopped: {error}"),
        outcome => outcome?,
    }
    Ok(())
}

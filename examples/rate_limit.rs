//! `cargo run --bin rate_limit`
//!
//! At most one mail per user and period, across all copies of a service. A detached lease lives
//! until its TTL, so the lock itself is the only state that this needs.

use std::time::Duration;

use syncguard_memory::{Error, LockManager, MemoryBackend};
use tokio::time::sleep;

/// Short, so that the example ends soon. On all backends but Redis the key stays taken for one more
/// second, the tolerance for clocks.
const PERIOD: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = LockManager::new(MemoryBackend::new());
    for attempt in 1..=3 {
        if mail_allowed(&locks, "user-7").await? {
            println!("attempt {attempt}: mail sent");
        } else {
            println!("attempt {attempt}: too soon");
        }
    }
    while !mail_allowed(&locks, "user-7").await? {
        sleep(PERIOD).await;
    }
    println!("a period later: mail sent");
    Ok(())
}

async fn mail_allowed(locks: &LockManager, user: &str) -> Result<bool, Error> {
    let request = locks.lock(format!("mail:{user}")).ttl(PERIOD);
    let Some(guard) = request.try_acquire().await? else {
        return Ok(false);
    };
    // Dropping the guard would release the lease. Detaching it leaves the lease to its TTL.
    guard.detach();
    Ok(true)
}

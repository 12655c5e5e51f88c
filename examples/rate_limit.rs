//! `cargo run --bin rate_limit`
//!
//! A lease that is detached lives on until its TTL: at most one mail per user and period, over all
//! copies of a service, without a line of state of one's own.

use std::time::Duration;

use syncguard_memory::{Error, LockManager, MemoryBackend};
use tokio::time::sleep;

/// So short that the example ends soon. The memory backend counts the second of tolerance that all
/// backends but Redis add to it.
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
    guard.detach();
    Ok(true)
}

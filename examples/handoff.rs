//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin handoff`
//!
//! One process acquires the lock, and another continues with it. The lease travels as JSON, and the
//! lock is never free in between.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use syncguard_redis::{Lease, LockManager, RedisBackend};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);

    if std::env::args().nth(1).as_deref() == Some("continue") {
        return continue_with_lease(&locks).await;
    }
    let guard = locks.lock("upload:7").ttl(Duration::from_secs(20)).acquire().await?;
    println!("first process: holds the lock with fence {}", guard.fence());

    let mut second =
        Command::new(std::env::current_exe()?).arg("continue").stdin(Stdio::piped()).spawn()?;
    // Anyone who has the lease can end it, so it is a secret: a pipe is safer than an argument,
    // which every user of the machine can read.
    serde_json::to_writer(second.stdin.take().ok_or("the child has no pipe")?, &guard.detach())?;
    println!("first process: detached the lease");
    assert!(second.wait()?.success());
    println!("the lock is held: {}", locks.is_locked("upload:7").await?);
    Ok(())
}

async fn continue_with_lease(locks: &LockManager) -> Result<(), Box<dyn std::error::Error>> {
    let mut json = String::new();
    std::io::stdin().read_to_string(&mut json)?;
    let lease: Lease = serde_json::from_str(&json)?;
    let request = locks.lock(lease.key()).ttl(Duration::from_secs(20)).keep_alive();
    let guard = request.adopt(&lease).await?.ok_or("the lease ended on its way here")?;
    println!("second process: continues with fence {}", guard.fence());
    println!("second process: released the lease: {}", guard.release().await?);
    Ok(())
}

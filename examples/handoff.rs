//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin handoff`
//!
//! One process takes the lock, another goes on with it: the lease travels as JSON, and the lock is
//! never free in between.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use syncguard_redis::{Lease, LockManager, RedisBackend};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);

    if std::env::args().nth(1).as_deref() == Some("go-on") {
        return go_on(&locks).await;
    }
    let guard = locks.lock("upload:7").ttl(Duration::from_secs(20)).acquire().await?;
    println!("first process: holds the lock with fence {}", guard.fence());

    let mut second =
        Command::new(std::env::current_exe()?).arg("go-on").stdin(Stdio::piped()).spawn()?;
    // Whoever has the lease can end it, so it goes by a pipe and not by an argument.
    serde_json::to_writer(second.stdin.take().ok_or("it has no pipe")?, &guard.detach())?;
    println!("first process: has let go");
    assert!(second.wait()?.success());
    println!("the lock is taken: {}", locks.is_locked("upload:7").await?);
    Ok(())
}

async fn go_on(locks: &LockManager) -> Result<(), Box<dyn std::error::Error>> {
    let mut json = String::new();
    std::io::stdin().read_to_string(&mut json)?;
    let lease: Lease = serde_json::from_str(&json)?;
    let request = locks.lock(lease.key()).ttl(Duration::from_secs(20)).keep_alive();
    let guard = request.adopt(&lease).await?.ok_or("the lease ended on the way")?;
    println!("second process: goes on with fence {}", guard.fence());
    println!("second process: released it: {}", guard.release().await?);
    Ok(())
}

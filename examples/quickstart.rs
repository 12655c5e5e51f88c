//! `cargo run --bin quickstart`
//!
//! Two workers contend for one lock, one of them loses its lease, and no server is needed: the
//! locks live in this process. With Redis, Postgres or Firestore only the backend's line changes.

use std::error::Error;
use std::time::Duration;

use syncguard_memory::{LockManager, MemoryBackend, Result};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let locks = LockManager::new(MemoryBackend::new());

    println!("Two workers, one lock:");
    let workers = ["ada", "bob"].map(|name| tokio::spawn(work(locks.clone(), name)));
    for worker in workers {
        worker.await??;
    }

    println!("A lease that is lost:");
    let guard = locks.lock("report").ttl(Duration::from_millis(300)).keep_alive().acquire().await?;
    println!("  carl holds it with fence {}", guard.fence());
    // Whoever knows the id can end the lease: here, an operator who cleans up.
    locks.release_by_id(guard.id()).await?;
    guard.lost().await;
    println!("  carl was told of the loss and stops");
    println!("  carl had something to release: {}", guard.release().await?);

    Ok(locks.shutdown().await?)
}

async fn work(locks: LockManager, name: &str) -> Result<()> {
    for round in 1..=2 {
        let guard = locks.lock("report").acquire().await?;
        println!("  {name} holds it with fence {} (round {round})", guard.fence());
        sleep(Duration::from_millis(50)).await;
        guard.release().await?;
    }
    Ok(())
}

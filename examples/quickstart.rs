//! `cargo run --bin quickstart`
//!
//! Two workers contend for one lock, then a third worker loses its lease. No server is needed: the
//! locks live in this process. On Redis, Postgres or Firestore, only the backend's line changes.

use std::error::Error;
use std::time::Duration;

use syncguard_memory::{ErrorCode, LockManager, MemoryBackend, Result};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let locks = LockManager::new(MemoryBackend::new());

    println!("Two workers, one lock:");
    let workers = ["ada", "bob"].map(|name| tokio::spawn(work(locks.clone(), name)));
    for worker in workers {
        worker.await??;
    }

    println!("A lost lease:");
    match interrupted(&locks).await {
        Err(error) if error.code() == ErrorCode::Lost => {
            println!("  carl lost the lease and stopped");
        }
        other => other?,
    }
    Ok(locks.shutdown().await?)
}

async fn work(locks: LockManager, name: &str) -> Result<()> {
    for round in 1..=2 {
        locks
            .lock("report")
            .run(async |lock| -> Result<()> {
                println!("  {name} holds it with fence {} (round {round})", lock.fence());
                sleep(Duration::from_millis(50)).await;
                Ok(())
            })
            .await?;
    }
    Ok(())
}

async fn interrupted(locks: &LockManager) -> Result<()> {
    let request = locks.lock("report").ttl(Duration::from_millis(300));
    request
        .run(async |lock| -> Result<()> {
            println!("  carl holds it with fence {}", lock.fence());
            // Anyone who knows the lock id can end the lease. Here, an operator does it.
            locks.release_by_id(lock.id()).await?;
            // `run` stops the work here, at its next await point.
            sleep(Duration::from_secs(60)).await;
            println!("  never printed");
            Ok(())
        })
        .await
}

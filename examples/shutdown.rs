//! `cargo run --bin shutdown`
//!
//! How a service stops: it ends all waits, lets the work in progress finish, and sends the releases
//! that still run in the background. Without this, leases can stand until their TTL.

use std::time::Duration;

use syncguard_memory::{Error, ErrorCode, LockManager, MemoryBackend};
use tokio::task::JoinSet;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let builder = LockManager::builder(MemoryBackend::new());
    // Less than the time between the stop signal and the kill.
    let locks = builder.shutdown_limit(Duration::from_secs(5)).build();

    let mut workers = JoinSet::new();
    for worker in 1..=3 {
        workers.spawn(work(locks.clone(), worker));
    }
    // Stands for SIGTERM: a service awaits `tokio::signal` here.
    sleep(Duration::from_millis(50)).await;
    println!("stopping");

    // Ends all waits with `Aborted`. Guards stay valid.
    locks.shutdown().await?;
    while let Some(worker) = workers.join_next().await {
        if let Ok(outcome) = worker {
            println!("{}", outcome?);
        }
    }
    // Sends the releases of guards that were dropped since the first call.
    locks.shutdown().await?;
    println!("stopped");
    Ok(())
}

async fn work(locks: LockManager, worker: u32) -> Result<String, Error> {
    let work = locks.lock("feed").run(async |lock| -> Result<_, Error> {
        sleep(Duration::from_millis(200)).await;
        Ok(format!("worker {worker} finished with fence {}", lock.fence()))
    });
    match work.await {
        Err(error) if error.code() == ErrorCode::Aborted => {
            Ok(format!("worker {worker} waited and was stopped"))
        }
        other => other,
    }
}

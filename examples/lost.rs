//! `cargo run --bin lost`
//!
//! How a holder learns that it lost its lease. `run` handles this by itself: it stops the work and
//! returns `ErrorCode::Lost`. With a guard, your code does it: in the same task with `lost`, and in
//! other tasks with `lost_token`.

use std::time::Duration;

use syncguard_memory::{Error, FaultyBackend, LockManager, MemoryBackend};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = LockManager::new(backend.clone());

    let ttl = Duration::from_millis(300);
    let guard = locks.lock("upload").ttl(ttl).keep_alive().acquire().await?;

    let lost = guard.lost_token();
    let helper = tokio::spawn(async move {
        // `run_until_cancelled` returns `None` if the token was cancelled first.
        let finished = lost.run_until_cancelled(sleep(Duration::from_secs(60))).await;
        println!("the helper finished its part: {}", finished.is_some());
    });

    // Stands for a failover without the last writes, or for an operator who deletes the key.
    backend.lose_lease("upload").await?;

    tokio::select! {
        // If both are ready, the loss must win: after a pause of the process, the work must not
        // take one more step.
        biased;
        () = guard.lost() => println!("the lease is lost, {:?} remain", guard.remaining()),
        () = sleep(Duration::from_secs(60)) => println!("the work is done"),
    }
    drop(helper.await);
    println!("there was something to release: {}", guard.release().await?);
    locks.shutdown().await
}

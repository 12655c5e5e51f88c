//! `cargo run --bin cancel`
//!
//! Two ways to stop waiting for a lock: cancel a token, or drop the future. Both are safe at any
//! moment. If the server grants the lock to a request that is gone, the library releases it.

use std::time::Duration;

use syncguard_memory::{CancellationToken, Error, ErrorCode, LockManager, MemoryBackend};
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = LockManager::new(MemoryBackend::new());
    let holder = locks.lock("import").acquire().await?;

    // A token can stop many waits at once: a client that disconnected, a service that stops.
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            sleep(Duration::from_millis(50)).await;
            stop.cancel();
        }
    });
    match locks.lock("import").cancel(stop).acquire().await {
        Err(error) if error.code() == ErrorCode::Aborted => println!("cancelled: {error}"),
        other => drop(other?),
    }

    // `timeout` drops the future. To limit a wait alone, prefer `.wait(..)`: its error says more.
    let dropped = timeout(Duration::from_millis(50), locks.lock("import").acquire()).await;
    println!("dropped: {}, still waiting: {}", dropped.is_err(), locks.waiters());

    println!("the holder released its lease: {}", holder.release().await?);
    locks.shutdown().await
}

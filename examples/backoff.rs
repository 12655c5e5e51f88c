//! `cargo run --bin backoff`
//!
//! How long a waiter sleeps between two attempts. The backoff matters if no notification arrives:
//! the backend sends none, or a client that sends none holds the lock.

use std::time::Duration;

use syncguard_memory::{
    Backoff, Error, FaultyBackend, Jitter, LockManager, LockRequest, MemoryBackend, Operation,
};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // A backend that never notifies its waiters, such as Firestore with its default settings.
    let backend = FaultyBackend::new(MemoryBackend::new()).without_notifications();

    // The delay starts at 50 ms and doubles, for every request of this manager. A wait limit lifts
    // the default limit of 10 retries.
    let locks = LockManager::builder(backend.clone())
        .backoff(Backoff::exponential(Duration::from_millis(50)))
        .wait(Duration::from_secs(5))
        .build();
    println!("doubling: {} attempts", attempts(&backend, locks.lock("feed")).await?);

    // One request differs. A fixed delay suits work of known length; full jitter keeps waiters in
    // different processes from trying in step.
    let fixed = Backoff::fixed(Duration::from_millis(50)).with_jitter(Jitter::Full);
    let request = locks.lock("feed").backoff(fixed);
    println!("fixed: {} attempts", attempts(&backend, request).await?);
    locks.shutdown().await
}

/// Counts the attempts of a request while another process holds the lock for 300 ms.
async fn attempts(backend: &FaultyBackend, request: LockRequest) -> Result<usize, Error> {
    let other_process = LockManager::new(backend.clone());
    let held = other_process.lock("feed").acquire().await?;
    let before = backend.count(Operation::Acquire);
    let (granted, released) = tokio::join!(request.acquire(), async {
        sleep(Duration::from_millis(300)).await;
        held.release().await
    });
    released?;
    granted?.release().await?;
    Ok(backend.count(Operation::Acquire) - before)
}

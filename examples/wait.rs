//! `cargo run --bin wait`
//!
//! How long a request waits for a lock: the default, a limit per request, and a default for the
//! whole service.

use std::time::Duration;

use syncguard_memory::{Error, ErrorCode, LockManager, MemoryBackend};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Without this, a request waits for at most 5 s and retries at most 10 times.
    let builder = LockManager::builder(MemoryBackend::new());
    let locks = builder.wait(Duration::from_secs(2)).build();

    let holder = locks.lock("import").acquire().await?;

    // A wait of its own, for one request.
    let impatient = locks.lock("import").wait(Duration::from_millis(100));
    match impatient.acquire().await {
        Err(error) if error.code() == ErrorCode::AcquisitionTimeout => {
            println!("gave up: {error}");
        }
        other => drop(other?),
    }

    // No wait: one attempt.
    if locks.lock("import").try_acquire().await?.is_none() {
        println!("somebody else holds the lock now");
    }

    // The service's default of 2 s is long enough for this one.
    let patient = tokio::spawn({
        let request = locks.lock("import");
        async move { request.acquire().await }
    });
    sleep(Duration::from_millis(50)).await;
    println!("waiting: {}", locks.waiters());
    holder.release().await?;
    match patient.await {
        Ok(guard) => println!("the patient request got the lock with fence {}", guard?.fence()),
        Err(panicked) => println!("the task panicked: {panicked}"),
    }
    locks.shutdown().await
}

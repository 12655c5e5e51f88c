//! `cargo run --bin extend`
//!
//! Renews a lease by hand. Most code does not need this: `run` renews by itself, and a guard does
//! with `keep_alive`. Extend by hand to tie the lease to progress: then a job that hangs loses its
//! lock, and others can go on.

use std::time::Duration;

use syncguard_memory::{Error, LockManager, MemoryBackend};
use tokio::time::sleep;

/// Longer than any one step, far shorter than the whole job.
const STEP: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = LockManager::new(MemoryBackend::new());
    let job = locks.lock("reindex").ttl(STEP).without_keep_alive().run(
        async |lock| -> Result<_, Error> {
            for step in 1..=4 {
                // Sets the time left to `STEP` from now; it does not add. If the lease is gone, the
                // error has the code `Lost`, and the job stops here.
                let until = lock.extend(STEP).await?;
                sleep(STEP / 2).await;
                println!("step {step} is done; the lease expires at {until}");
            }
            Ok(())
        },
    );
    match job.await {
        Ok(()) => println!("the job took longer than one TTL and kept its lock"),
        Err(error) => println!("the job lost its lock: {error}"),
    }

    // A step that hangs does not extend, so the lease ends and others can acquire the key.
    let stuck =
        locks.lock("reindex").ttl(STEP).without_keep_alive().run(async |_| -> Result<_, Error> {
            sleep(STEP * 2).await;
            Ok(())
        });
    match stuck.await {
        Ok(()) => println!("never printed"),
        Err(error) => println!("the stuck job lost its lock: {error}"),
    }
    locks.shutdown().await
}

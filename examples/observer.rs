//! `cargo run --bin observer`
//!
//! Metrics: how long requests wait, how often they fail, and how many leases are lost. The observer
//! gets one event per operation on the backend, one per wait, and one per lost lease. Keys appear as
//! fingerprints, so events can go to any log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use syncguard_memory::{
    Error, Event, FaultyBackend, LockManager, MemoryBackend, Operation, Outcome,
};
use tokio::sync::Notify;

/// Stands for the counters and histograms of a metrics library.
#[derive(Default)]
struct Metrics {
    waits: AtomicU64,
    waited_ms: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    loss_seen: Notify,
}

impl Metrics {
    /// The library calls this from its own code paths, so it must be quick and must not block.
    fn record(&self, event: &Event) {
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        match (event.operation(), event.outcome()) {
            (Operation::Wait, outcome) => {
                add(&self.waits, 1);
                add(&self.waited_ms, event.duration().as_millis().try_into().unwrap_or(u64::MAX));
                if let Outcome::Failed(code) = outcome {
                    println!("a wait failed with {code} after {:?} attempts", event.attempts());
                }
            }
            (Operation::Hold, _) => {
                add(&self.lost, 1);
                self.loss_seen.notify_one();
            }
            (_, Outcome::Failed(_)) => {
                add(&self.failed, 1);
            }
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let metrics = Arc::new(Metrics::default());
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = LockManager::builder(backend.clone())
        .observer({
            let metrics = metrics.clone();
            move |event| metrics.record(event)
        })
        .build();

    let guard = locks.lock("report").ttl(Duration::from_millis(300)).keep_alive().acquire().await?;
    let impatient = locks.lock("report").wait(Duration::from_millis(50)).acquire().await;
    println!("the second request got the lock: {}", impatient.is_ok());
    backend.lose_lease("report").await?;
    guard.lost().await;
    // The observer hears of it right after the holder.
    metrics.loss_seen.notified().await;

    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("waits: {}, {} ms in all", read(&metrics.waits), read(&metrics.waited_ms));
    println!("failed operations: {}", read(&metrics.failed));
    println!("lost leases: {}", read(&metrics.lost));
    println!("waiting now: {}", locks.waiters());
    locks.shutdown().await
}

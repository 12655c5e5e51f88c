//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin payment`
//!
//! Several workers pick up one invoice, and it is paid once. The bank in this example checks fences:
//! it refuses a worker that was paused for longer than its lease. If your provider does not do that,
//! see `idempotent_payment.rs`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use syncguard_redis::{Fence, LockManager, RedisBackend};
use tokio::sync::Mutex;
use tokio::time::sleep;

#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error(transparent)]
    Lock(#[from] syncguard_redis::Error),
    #[error("refused: a newer holder was here")]
    StaleFence,
    #[error("finds it paid")]
    AlreadyPaid,
}

/// The bank, with its record of the one invoice.
#[derive(Default)]
struct Bank(Mutex<Invoice>);

#[derive(Default)]
struct Invoice {
    paid: bool,
    fence: Option<Fence>,
}

impl Bank {
    /// One atomic step, like one SQL statement: check the fence, check the state, then act.
    async fn charge(&self, fence: Fence) -> Result<(), PayError> {
        let mut invoice = self.0.lock().await;
        if invoice.fence.is_some_and(|highest| fence < highest) {
            return Err(PayError::StaleFence);
        }
        invoice.fence = Some(fence);
        if invoice.paid {
            return Err(PayError::AlreadyPaid);
        }
        sleep(Duration::from_millis(50)).await;
        invoice.paid = true;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379".into());
    let locks = LockManager::new(RedisBackend::connect(&url).await?);
    let bank = Arc::new(Bank::default());

    let workers = (1..=3).map(|worker| tokio::spawn(pay(locks.clone(), bank.clone(), worker)));
    for worker in workers.collect::<Vec<_>>() {
        match worker.await? {
            Ok(paid) => println!("{paid}"),
            Err(PayError::Lock(error)) => return Err(error.into()),
            Err(refusal) => println!("another worker: {refusal}"),
        }
    }
    Ok(locks.shutdown().await?)
}

async fn pay(locks: LockManager, bank: Arc<Bank>, worker: u32) -> Result<String, PayError> {
    locks
        .lock("invoice:42")
        .ttl(Duration::from_secs(10))
        .run(async |lock| -> Result<_, PayError> {
            bank.charge(lock.fence()).await?;
            Ok(format!("worker {worker} pays it with fence {}", lock.fence()))
        })
        .await
}

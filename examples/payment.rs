//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin payment`
//!
//! An invoice is paid once, however many workers pick it up: the lock lets one in at a time, and
//! what it finds done is not done again. The fence goes along, so that a worker which was paused
//! for too long is refused by the bank.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use syncguard_redis::{Fence, LockManager, RedisBackend, Result};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// The payment service. It keeps the highest fence per invoice beside the payment.
#[derive(Default)]
struct Bank(Mutex<Option<Fence>>);

impl Bank {
    async fn is_paid(&self) -> bool {
        self.0.lock().await.is_some()
    }

    async fn charge(&self, fence: Fence) -> Result<(), &'static str> {
        sleep(Duration::from_millis(50)).await;
        let mut paid = self.0.lock().await;
        if paid.is_some_and(|highest| fence < highest) {
            return Err("a newer holder was here");
        }
        *paid = Some(fence);
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
        worker.await??;
    }
    Ok(locks.shutdown().await?)
}

async fn pay(locks: LockManager, bank: Arc<Bank>, worker: u32) -> Result<()> {
    let request = locks.lock("invoice:42").ttl(Duration::from_secs(10)).keep_alive();
    let outcome = request
        .run(async |lock| {
            if bank.is_paid().await {
                return Ok(format!("finds it paid, with fence {}", lock.fence()));
            }
            bank.charge(lock.fence()).await?;
            Ok::<_, &str>(format!("pays it, with fence {}", lock.fence()))
        })
        .await?;
    match outcome {
        Ok(what) => println!("worker {worker} {what}"),
        Err(refusal) => println!("worker {worker} is refused: {refusal}"),
    }
    Ok(())
}

//! `REDIS_URL=redis://127.0.0.1:6379 cargo run --features redis --bin payment`
//!
//! An invoice is paid once, however many workers pick it up. Three things make it so: the lock lets
//! one worker in at a time, the bank knows which invoices are paid, and it refuses a fence that is
//! lower than one it has seen, so that a worker which was paused for too long comes to nothing.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use syncguard_redis::{Fence, LockManager, RedisBackend, Result};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// The payment service, with what it keeps of the one invoice.
#[derive(Default)]
struct Bank(Mutex<Invoice>);

#[derive(Default)]
struct Invoice {
    paid: bool,
    fence: Option<Fence>,
}

impl Bank {
    /// One atomic step, as one statement or transaction would be: refuse what is late, refuse what
    /// is done, do it.
    async fn charge(&self, fence: Fence) -> Result<(), &'static str> {
        let mut invoice = self.0.lock().await;
        if invoice.fence.is_some_and(|highest| fence < highest) {
            return Err("is refused: a newer holder was here");
        }
        invoice.fence = Some(fence);
        if invoice.paid {
            return Err("finds it paid");
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
        worker.await??;
    }
    Ok(locks.shutdown().await?)
}

async fn pay(locks: LockManager, bank: Arc<Bank>, worker: u32) -> Result<()> {
    let request = locks.lock("invoice:42").ttl(Duration::from_secs(10)).keep_alive();
    let (fence, outcome) = request
        .run(async |lock| -> Result<_> { Ok((lock.fence(), bank.charge(lock.fence()).await)) })
        .await?;
    match outcome {
        Ok(()) => println!("worker {worker}, fence {fence}: pays it"),
        Err(refusal) => println!("worker {worker}, fence {fence}: {refusal}"),
    }
    Ok(())
}

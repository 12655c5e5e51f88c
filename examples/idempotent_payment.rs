//! `cargo run --bin idempotent_payment`
//!
//! Charges a card once, at a payment provider that checks no fence. The lock reduces duplicate
//! calls; the idempotency key is what prevents a second charge. `docs/payments.md` explains each
//! step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use syncguard_memory::{FaultyBackend, LockManager, MemoryBackend};
use tokio::time::sleep;

#[derive(Debug, thiserror::Error)]
enum PayError {
    #[error(transparent)]
    Lock(#[from] syncguard_memory::Error),
    #[error("the provider did not answer")]
    NoAnswer,
}

/// The provider remembers the result of each idempotency key. It knows nothing of fences.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<HashMap<String, String>>>);

impl Provider {
    /// A request that is on its way reaches the provider, even if the caller stops waiting for it.
    async fn charge(&self, idempotency_key: String, cents: u64) -> Result<String, PayError> {
        let provider = self.clone();
        let request = tokio::spawn(async move {
            sleep(Duration::from_millis(600)).await;
            let mut charges = provider.0.lock().unwrap_or_else(PoisonError::into_inner);
            let number = charges.len() + 1;
            let charge = || format!("charge {number} of {cents} cents");
            charges.entry(idempotency_key).or_insert_with(charge).clone()
        });
        request.await.map_err(|_| PayError::NoAnswer)
    }

    fn charges(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The row that the service commits to its own database *before* it calls the provider.
#[derive(Clone)]
struct Intent {
    idempotency_key: String,
    cents: u64,
    receipt: Option<String>,
}

/// A table with a primary key: the invoice, and the number of the attempt that a human decided on.
#[derive(Clone, Default)]
struct Intents(Arc<Mutex<HashMap<(u32, u32), Intent>>>);

impl Intents {
    /// `INSERT .. ON CONFLICT DO NOTHING`, then `SELECT`: the first caller fixes key and amount.
    fn record(&self, invoice: u32, attempt: u32, cents: u64) -> Intent {
        let new = || Intent {
            // Made of what is paid. Not of the fence or the lock id: those differ in each retry.
            idempotency_key: format!("invoice-{invoice}-attempt-{attempt}"),
            cents,
            receipt: None,
        };
        let mut intents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        intents.entry((invoice, attempt)).or_insert_with(new).clone()
    }

    /// `UPDATE .. SET receipt = $1 WHERE .. AND receipt IS NULL`.
    fn finish(&self, invoice: u32, attempt: u32, receipt: &str) {
        let mut intents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(intent) = intents.get_mut(&(invoice, attempt)) {
            intent.receipt.get_or_insert_with(|| receipt.to_owned());
        }
    }
}

async fn pay(
    locks: &LockManager,
    intents: &Intents,
    provider: &Provider,
    invoice: u32,
) -> Result<String, PayError> {
    locks
        .lock(format!("invoice:{invoice}"))
        .ttl(Duration::from_millis(450))
        .run(async |_lock| -> Result<_, PayError> {
            let intent = intents.record(invoice, 1, 4_200);
            if let Some(receipt) = intent.receipt {
                return Ok(format!("{receipt}, found in our own table"));
            }
            let receipt = provider.charge(intent.idempotency_key, intent.cents).await?;
            intents.finish(invoice, 1, &receipt);
            Ok(receipt)
        })
        .await
}

#[tokio::main]
async fn main() -> Result<(), PayError> {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = LockManager::new(backend.clone());
    let (intents, provider) = (Intents::default(), Provider::default());

    // The first worker loses its lease while the provider charges the card, so it never learns the
    // result. The provider has the charge all the same.
    let (first, lost) = tokio::join!(pay(&locks, &intents, &provider, 42), async {
        sleep(Duration::from_millis(50)).await;
        backend.lose_lease("invoice:42").await
    });
    println!("the first worker's lease was taken away: {}", lost?);
    println!("first worker: {}", first.unwrap_or_else(|error| error.to_string()));

    println!("second worker: {}", pay(&locks, &intents, &provider, 42).await?);
    println!("third worker: {}", pay(&locks, &intents, &provider, 42).await?);
    println!("the card was charged {} time", provider.charges());
    Ok(locks.shutdown().await?)
}

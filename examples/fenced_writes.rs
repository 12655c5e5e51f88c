//! `cargo run --bin fenced_writes`
//!
//! A store that refuses stale fences. A holder that was paused for longer than its lease does not
//! know that somebody else holds the lock. The fence is what stops its write.

use std::time::Duration;

use syncguard_memory::{Error, Fence, LockManager, MemoryBackend};
use tokio::time::sleep;

/// The protected resource. A real one keeps the highest fence beside the data, and checks and writes
/// it in one statement: `UPDATE .. SET fence = $1 WHERE fence <= $1`.
#[derive(Default)]
struct Ledger {
    highest: Option<Fence>,
    entries: Vec<&'static str>,
}

impl Ledger {
    fn append(&mut self, entry: &'static str, fence: Fence) -> Result<(), String> {
        if let Some(highest) = self.highest.filter(|highest| fence < *highest) {
            return Err(format!("refused: fence {highest} was here before"));
        }
        self.highest = Some(fence);
        self.entries.push(entry);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let locks = LockManager::new(MemoryBackend::new());
    let mut ledger = Ledger::default();

    let ttl = Duration::from_millis(100);
    let paused = locks.lock("ledger").ttl(ttl).acquire().await?;
    println!("ada holds the lock with fence {} and is paused", paused.fence());
    sleep(ttl).await;

    let next = locks.lock("ledger").acquire().await?;
    println!("bob holds the lock with fence {}", next.fence());
    println!("bob writes: {:?}", ledger.append("bob's entry", next.fence()));

    println!("ada continues; her lease is lost: {}", paused.is_lost());
    println!("ada writes: {:?}", ledger.append("ada's entry", paused.fence()));
    println!("the ledger: {:?}", ledger.entries);
    next.release().await?;
    locks.shutdown().await
}

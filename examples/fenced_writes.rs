//! `cargo run --bin fenced_writes`
//!
//! A store that refuses a stale fence. A holder that was paused for longer than its lease does not
//! know that somebody else has the lock by now; the fence is what stops its write.

use std::time::Duration;

use syncguard_memory::{Error, Fence, LockManager, MemoryBackend};
use tokio::time::sleep;

/// What the lock protects. A real one keeps the highest fence beside the data, in a column that is
/// checked and written in the same statement: `update .. set fence = $1 where fence <= $1`.
#[derive(Default)]
struct Ledger {
    highest: Option<Fence>,
    entries: Vec<&'static str>,
}

impl Ledger {
    fn append(&mut self, entry: &'static str, fence: Fence) -> Result<(), String> {
        if let Some(highest) = self.highest.filter(|highest| fence < *highest) {
            return Err(format!("refused, fence {highest} was seen already"));
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

    println!("ada goes on, lost her lease: {}", paused.is_lost());
    println!("ada writes: {:?}", ledger.append("ada's entry", paused.fence()));
    println!("the ledger: {:?}", ledger.entries);
    next.release().await?;
    Ok(())
}

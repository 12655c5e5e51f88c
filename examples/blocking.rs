//! `cargo run --bin blocking`
//!
//! Locks in a program without async: two threads contend for a lock, and a long job asks between its
//! steps whether it still holds its lease. With Redis, Postgres or Firestore only the future that
//! connects changes.

use std::thread;
use std::time::Duration;

use syncguard_memory::blocking::LockManager;
use syncguard_memory::{Error, MemoryBackend, Result};

fn main() -> Result<()> {
    let locks = LockManager::connect(async { Ok(MemoryBackend::new()) })?;

    println!("Two threads, one lock:");
    thread::scope(|scope| {
        let threads = ["ada", "bob"].map(|name| scope.spawn(|| work(&locks, name)));
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;

    println!("A job that is longer than its TTL, and is renewed while its thread sleeps:");
    let steps = locks.lock("report").ttl(Duration::from_millis(500)).run(|lock| {
        let mut steps = 0;
        while steps < 4 && !lock.is_lost() {
            thread::sleep(Duration::from_millis(200));
            steps += 1;
        }
        Ok::<_, Error>(steps)
    })?;
    println!("  it kept its lease for {steps} steps");

    locks.shutdown()
}

fn work(locks: &LockManager, name: &str) -> Result<()> {
    for round in 1..=2 {
        let guard = locks.lock("report").acquire()?;
        println!("  {name} holds it with fence {} (round {round})", guard.fence());
        thread::sleep(Duration::from_millis(50));
        guard.release()?;
    }
    Ok(())
}

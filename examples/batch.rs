//! `cargo run --bin batch`
//!
//! A lock in a command-line job that uses anyhow. `anyhow::Error` can be made of any error, so the
//! closure returns `anyhow::Result`, and `context` works inside and outside.

use anyhow::{Context, ensure};
use syncguard_memory::{ErrorCode, LockManager, MemoryBackend};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let locks = LockManager::new(MemoryBackend::new());
    let lines = import(&locks, "1 4\n2 6\n").await?;
    println!("imported {lines} lines");

    let Err(error) = import(&locks, "1 four\n").await else { unreachable!("not a number") };
    println!("failed: {error:#}");

    // The code of a lock's error is still there, below the context.
    let code = error.downcast_ref::<syncguard_memory::Error>().map(|error| error.code());
    println!("the lock itself failed: {}", code.is_some_and(ErrorCode::is_transient));
    locks.shutdown().await.context("finishing background releases")
}

async fn import(locks: &LockManager, text: &str) -> anyhow::Result<usize> {
    let lines = locks
        .lock("import")
        .run(async |lock| -> anyhow::Result<_> {
            for (number, line) in (1..).zip(text.lines()) {
                let (id, amount) = line
                    .split_once(' ')
                    .with_context(|| format!("line {number} has one column"))?;
                let amount: u32 = amount.parse().with_context(|| format!("line {number}"))?;
                ensure!(!lock.is_lost(), "the lease was lost at line {number}");
                println!("id {id}: {amount}, under fence {}", lock.fence());
            }
            Ok(text.lines().count())
        })
        .await
        .context("importing")?;
    Ok(lines)
}

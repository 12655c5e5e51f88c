//! `LOCKS=redis://127.0.0.1:6379 cargo run --features redis --bin choose_backend`
//!
//! Which store carries the locks is decided when the service starts. The rest of the service sees a
//! `LockManager`, which is the same type for all of them.

use syncguard::{AnyBackend, Error, ErrorCode, LockManager, Operation};
use syncguard_memory::MemoryBackend;
use syncguard_redis::RedisBackend;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("LOCKS").unwrap_or("memory:".into());
    let locks = LockManager::new(backend(&url).await?);
    println!("locks on {:?}", locks.backend());
    nightly_job(&locks).await?;
    locks.shutdown().await
}

async fn backend(url: &str) -> Result<AnyBackend, Error> {
    match url.split(':').next() {
        Some("memory") => Ok(AnyBackend::new(MemoryBackend::new())),
        Some("redis" | "rediss") => Ok(AnyBackend::new(RedisBackend::connect(url).await?)),
        _ => Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure)
            .with_message("LOCKS must be memory: or a URL of Redis")),
    }
}

async fn nightly_job(locks: &LockManager) -> Result<(), Error> {
    let fence = locks.lock("nightly-job").keep_alive().run(async |lock| lock.fence()).await?;
    println!("the job ran once, with fence {fence}");
    Ok(())
}

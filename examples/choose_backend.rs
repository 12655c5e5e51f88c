//! `LOCKS=memory: cargo run --features redis,postgres,firestore --bin choose_backend`
//!
//! A service that reads from its configuration where its locks live. The rest of the service sees a
//! `LockManager`, which is one type for all backends. The service's defaults are set here, once.

use std::time::Duration;

use syncguard::{AnyBackend, Error, ErrorCode, LockManager, Operation};
use syncguard_firestore::FirestoreBackend;
use syncguard_memory::MemoryBackend;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = std::env::var("LOCKS").unwrap_or("memory:".into());
    let locks = LockManager::builder(backend(&store).await?)
        .ttl(Duration::from_secs(20))
        .wait(Duration::from_secs(10))
        .build();
    nightly_job(&locks).await?;
    locks.shutdown().await
}

/// Connects to `memory:`, `redis://..`, `postgres://..` or `firestore:project-id`.
async fn backend(store: &str) -> Result<AnyBackend, Error> {
    let (scheme, rest) = store.split_once(':').unwrap_or((store, ""));
    match scheme {
        "memory" => Ok(AnyBackend::new(MemoryBackend::new())),
        "redis" | "rediss" => Ok(AnyBackend::new(RedisBackend::connect(store).await?)),
        "postgres" | "postgresql" => {
            let backend = PostgresBackend::connect(store).await?;
            backend.setup_schema().await?;
            Ok(AnyBackend::new(backend))
        }
        "firestore" => Ok(AnyBackend::new(FirestoreBackend::connect(rest).await?)),
        _ => Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure)
            .with_message("LOCKS must name memory, redis, postgres or firestore")),
    }
}

async fn nightly_job(locks: &LockManager) -> Result<(), Error> {
    let fence = locks
        .lock("nightly-job")
        .run(async |lock| -> Result<_, Error> { Ok(lock.fence()) })
        .await?;
    println!("the job ran once, with fence {fence}");
    Ok(())
}

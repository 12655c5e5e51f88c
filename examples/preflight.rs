//! `LOCKS=memory: cargo run --features redis,postgres,firestore --bin preflight`
//!
//! Checks how the store of the locks is set up, and prints a line for each finding. Run it in a
//! deployment before the service starts: it fails if locks would not work. A service that wants the
//! findings in its log calls `LockManager::preflight` once when it starts.

use std::process::ExitCode;

use syncguard::{AnyBackend, Backend, Error, ErrorCode, Level, Operation};
use syncguard_firestore::FirestoreBackend;
use syncguard_memory::MemoryBackend;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let store = std::env::var("LOCKS").unwrap_or("memory:".into());
    let findings = backend(&store).await?.preflight().await;
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.level() >= Level::Error).count();
    println!("{} checks, {errors} errors", findings.len());
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Connects to `memory:`, `redis://..`, `postgres://..` or `firestore:project-id`.
async fn backend(store: &str) -> Result<AnyBackend, Error> {
    let (scheme, rest) = store.split_once(':').unwrap_or((store, ""));
    match scheme {
        "memory" => Ok(AnyBackend::new(MemoryBackend::new())),
        "redis" | "rediss" => Ok(AnyBackend::new(RedisBackend::connect(store).await?)),
        "postgres" | "postgresql" => Ok(AnyBackend::new(PostgresBackend::connect(store).await?)),
        "firestore" => Ok(AnyBackend::new(FirestoreBackend::connect(rest).await?)),
        _ => Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure)
            .with_message("LOCKS must name memory, redis, postgres or firestore")),
    }
}

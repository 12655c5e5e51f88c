//! `FIRESTORE_EMULATOR_HOST=127.0.0.1:8080 cargo run --features firestore --bin checked_clock`
//!
//! On Firestore the clients' clocks decide when a lease ends, so a service checks its own clock
//! before it acquires locks. On the real service, set `PROJECT_ID` and provide Google's default
//! credentials.

use syncguard_firestore::{
    ClockOffset, Error, ErrorCode, FirestoreBackend, LockManager, Operation,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let project = std::env::var("PROJECT_ID").unwrap_or("demo-project".into());
    let backend = FirestoreBackend::connect(&project).await?;

    let offset = backend.clock_offset().await?;
    println!("ahead by {:?}, behind by {:?}", offset.ahead(), offset.behind());
    if offset.certainly_exceeds(ClockOffset::WARN_ABOVE) {
        return Err(Error::new(ErrorCode::Internal, Operation::Configure)
            .with_message("this machine's clock is wrong: correct it before the service starts"));
    }

    let locks = LockManager::new(backend);
    let fence = locks
        .lock("nightly-export")
        .run(async |lock| -> Result<_, Error> { Ok(lock.fence()) })
        .await?;
    println!("the export ran once, with fence {fence}");
    locks.shutdown().await
}

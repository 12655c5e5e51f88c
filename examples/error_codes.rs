//! `cargo run --bin error_codes`
//!
//! A job that skips its work if another copy of the service does it. It must skip on contention
//! only: to skip because the server does not answer would hide an outage.

use std::time::Duration;

use syncguard_memory::{
    Error, ErrorCode, Fault, FaultyBackend, LockManager, MemoryBackend, Operation,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = LockManager::builder(backend.clone()).wait(Duration::from_millis(200)).build();

    println!("free: {}", nightly(&locks).await);

    let other_copy = locks.lock("nightly").acquire().await?;
    println!("held: {}", nightly(&locks).await);
    other_copy.release().await?;

    backend.on_call(|operation, _| match operation {
        Operation::Acquire => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    println!("outage: {}", nightly(&locks).await);
    locks.shutdown().await
}

async fn nightly(locks: &LockManager) -> String {
    let job =
        locks.lock("nightly").run(async |lock| -> Result<_, Error> { Ok(lock.fence()) }).await;
    let error = match job {
        Ok(fence) => return format!("the job ran with fence {fence}"),
        Err(error) => error,
    };
    match error.code() {
        ErrorCode::AcquisitionTimeout => "skipped, another copy does the job".into(),
        // The lease ended before the work did, so another copy may have begun.
        ErrorCode::Lost => "stopped, the next run repeats the job".into(),
        // The service is stopping.
        ErrorCode::Aborted => "not started".into(),
        // The library has retried these until its wait limit.
        _ if error.is_transient() => format!("failed, try again later and alert: {error}"),
        _ => format!("failed, and a retry will not help: {error}"),
    }
}

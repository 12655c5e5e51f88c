//! How to test that your code stops when its lease is lost: on the memory backend, in milliseconds.

use std::time::Duration;

use syncguard_memory::{ErrorCode, FaultyBackend, LockManager, MemoryBackend, Result};
use tokio::time::sleep;

/// The code under test: it must write nothing after a loss.
async fn import(locks: &LockManager, written: &mut u32) -> Result<()> {
    locks
        .lock("import")
        .run(async |_lock| -> Result<()> {
            for _ in 0..100 {
                sleep(Duration::from_secs(1)).await;
                *written += 1;
            }
            Ok(())
        })
        .await
}

// Paused time: no test waits for a second, and the TTL of 30 s passes at once.
#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_the_import() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = LockManager::new(backend.clone());
    let mut written = 0;
    let (result, lost) = tokio::join!(import(&locks, &mut written), async {
        sleep(Duration::from_secs(25)).await;
        backend.lose_lease("import").await
    });
    assert!(lost.unwrap());
    assert_eq!(result.unwrap_err().code(), ErrorCode::Lost);
    // The next renewal notices the loss. Renewals come every 10 s, a third of the TTL.
    assert!((25..=35).contains(&written), "{written} lines were written");
}

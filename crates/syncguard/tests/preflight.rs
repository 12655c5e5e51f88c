//! What a preflight returns and logs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::log::Log;
use syncguard::{Level, LockManager};
use syncguard_memory::MemoryBackend;

#[tokio::test(start_paused = true)]
async fn the_manager_returns_the_findings_of_its_backend() {
    let locks = LockManager::new(MemoryBackend::new());
    let findings = locks.preflight().await.unwrap();
    let found: Vec<_> = findings.iter().map(|finding| (finding.level(), finding.code())).collect();
    assert_eq!(found, [(Level::Warning, "one-process")]);
}

#[tokio::test(start_paused = true)]
async fn findings_are_logged_once_if_asked_for() {
    for asked in [false, true] {
        let (log, _logging) = Log::of_this_thread();
        let mut builder = LockManager::builder(MemoryBackend::new());
        if asked {
            builder = builder.log_preflight();
        }
        let _locks = builder.build();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(log.warnings("one-process").len(), usize::from(asked));
    }
}

#[test]
fn a_preflight_without_a_runtime_says_so() {
    let (log, _logging) = Log::of_this_thread();
    let locks = LockManager::builder(MemoryBackend::new()).log_preflight().build();
    assert_eq!(log.warnings("no preflight").len(), 1);
    let error = support::block_on::block_on(locks.preflight()).unwrap_err();
    assert_eq!(error.operation().as_str(), "preflight");
}

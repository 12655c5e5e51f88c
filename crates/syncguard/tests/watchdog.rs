//! N2: work that blocks its thread past the deadline, and the process that is aborted for it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use syncguard::{LockManager, Result};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend, Operation};

const TTL: Duration = Duration::from_millis(300);
/// Set in the process that is to be aborted.
const WORK: &str = "SYNCGUARD_TEST_WORK";

/// Runs the other test of this file in a process of its own, with this work.
fn outcome(work: &str) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leads_in_a_process_of_its_own", "--ignored"])
        .env(WORK, work)
        .output()
        .unwrap()
        .status
}

#[test]
fn n2_work_that_outlives_its_lease_aborts_the_process_if_asked_for() {
    assert_eq!(outcome("blocks").signal(), Some(6), "SIGABRT");
    assert!(outcome("waits").success(), "work that can be dropped aborts nothing");
    assert!(outcome("ends").success(), "nor does work that has ended");
    assert!(outcome("is renewed").success(), "nor does work whose lease is renewed");
    assert!(outcome("campaigns").success(), "nor does a term that is dropped when it is lost");
    assert_eq!(outcome("in a thread").signal(), Some(6), "SIGABRT");
}

#[tokio::test]
#[ignore = "started by the test above"]
async fn leads_in_a_process_of_its_own() {
    let Ok(work) = std::env::var(WORK) else { return };
    let backend = FaultyBackend::new(MemoryBackend::new().with_end_at_ttl());
    if work != "is renewed" {
        backend.on_call(|operation, _| match operation {
            Operation::Extend => Fault::Hang,
            _ => Fault::None,
        });
    }
    let locks = LockManager::new(backend);
    let election = locks.election("key").ttl(TTL).abort_at_deadline();
    if work == "campaigns" {
        let term = election.campaign().await.unwrap();
        term.lost().await;
        drop(term);
        tokio::time::sleep(TTL).await;
        return;
    }
    let lead = election.lead(async |term| -> Result<()> {
        match work.as_str() {
            "blocks" => std::thread::sleep(3 * TTL),
            "waits" | "is renewed" => std::future::pending().await,
            "in a thread" => {
                let guard = term.guard_work().unwrap();
                let blocking = tokio::task::spawn_blocking(move || {
                    std::thread::sleep(3 * TTL);
                    drop(guard);
                });
                blocking.await.unwrap();
            }
            _ => {}
        }
        Ok(())
    });
    let _ = tokio::time::timeout(3 * TTL, lead).await;
}

//! Waiting recovers with the server: after an outage, a free key is taken within a second.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::plain;
use syncguard::{Backoff, ErrorCode, LockGuard, LockManager, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

const DOWN: Fault = Fault::Fail(ErrorCode::ServiceUnavailable);

async fn waits(locks: &LockManager, backoff: Backoff) -> JoinHandle<Result<LockGuard>> {
    let before = locks.waiters();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(backoff);
    let waiter = Handle::current().spawn(request.acquire());
    while locks.waiters() == before {
        tokio::task::yield_now().await;
    }
    waiter
}

/// Every acquire does this from now on.
fn acquires(backend: &FaultyBackend, fault: Fault) {
    backend.on_call(move |operation, _| match operation {
        Operation::Acquire => fault,
        _ => Fault::None,
    });
}

#[tokio::test(start_paused = true)]
async fn w4_the_first_waiter_takes_a_free_key_within_a_second_of_recovery() {
    let slow = Backoff::exponential(20 * SECOND);
    for backoff in [Backoff::default(), Backoff::fixed(60 * SECOND), slow] {
        let backend = plain();
        let locks = LockManager::new(backend.clone());
        acquires(&backend, DOWN);
        let waiter = waits(&locks, backoff).await;
        sleep(30 * SECOND).await;
        assert!(!waiter.is_finished());
        acquires(&backend, Fault::None);
        let guard = timeout(SECOND, waiter).await.unwrap().unwrap().unwrap();
        assert!(guard.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn w4_a_server_that_hangs_is_asked_again_within_a_second_of_each_failure() {
    let server = plain();
    // Each attempt takes 5 s to fail.
    let backend = FaultyBackend::new(server.clone());
    acquires(&backend, Fault::DelayRequest(5 * SECOND));
    acquires(&server, Fault::Fail(ErrorCode::NetworkTimeout));
    let locks = LockManager::new(backend.clone());
    let waiter = waits(&locks, Backoff::default()).await;
    sleep(30 * SECOND).await;
    assert!(!waiter.is_finished());
    let begun = backend.calls(Operation::Acquire).last().unwrap().at();
    let attempt_ends = begun + 5 * SECOND;
    acquires(&backend, Fault::None);
    acquires(&server, Fault::None);
    let guard = waiter.await.unwrap().unwrap();
    assert!(Instant::now() <= attempt_ends + SECOND, "{:?}", Instant::now() - attempt_ends);
    assert!(guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w4_an_outage_while_the_key_was_held_changes_nothing() {
    let backend = plain();
    let others = LockManager::new(backend.clone());
    let locks = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = waits(&locks, Backoff::default()).await;
    // The pauses have grown to their longest.
    sleep(60 * SECOND).await;
    acquires(&backend, DOWN);
    sleep(30 * SECOND).await;
    assert!(held.release().await.unwrap());
    acquires(&backend, Fault::None);
    assert!(timeout(SECOND, waiter).await.unwrap().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn w2_newcomers_after_recovery_get_the_key_and_no_old_error() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    acquires(&backend, DOWN);
    let mut waiters = vec![waits(&locks, Backoff::default()).await];
    waiters.push(waits(&locks, Backoff::default()).await);
    sleep(30 * SECOND).await;
    acquires(&backend, Fault::None);
    for _ in 0..3 {
        waiters.push(waits(&locks, Backoff::default()).await);
    }
    let start = Instant::now();
    for waiter in waiters {
        let guard = waiter.await.unwrap().unwrap();
        assert!(guard.release().await.unwrap());
    }
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn w2_a_newcomer_that_gives_up_before_the_next_attempt_gets_no_old_error() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    acquires(&backend, DOWN);
    let first = waits(&locks, Backoff::default()).await;
    sleep(30 * SECOND).await;
    acquires(&backend, Fault::None);
    let newcomer = locks.lock("key").wait(MS).acquire().await;
    assert_ne!(newcomer.unwrap_err().code(), ErrorCode::ServiceUnavailable);
    assert!(first.await.unwrap().is_ok());
}

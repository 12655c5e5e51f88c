//! W2: no answer is not "no". A wait ends with `AcquisitionTimeout` only if an attempt was answered.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::plain;
use syncguard::{Error, ErrorCode, LockGuard, LockManager, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What servers that do not answer do to an attempt, and the code for the caller.
const SILENCE: [(Fault, ErrorCode); 4] = [
    (Fault::Hang, ErrorCode::NetworkTimeout),
    (Fault::Fail(ErrorCode::ServiceUnavailable), ErrorCode::ServiceUnavailable),
    (Fault::Fail(ErrorCode::NetworkTimeout), ErrorCode::NetworkTimeout),
    // A pool without a free connection.
    (Fault::Fail(ErrorCode::RateLimited), ErrorCode::RateLimited),
];

fn every_acquire(backend: &FaultyBackend, fault: Fault) {
    backend.on_call(move |operation, _| match operation {
        Operation::Acquire => fault,
        _ => Fault::None,
    });
}

/// Joins the queue at once.
async fn waits(locks: &LockManager, limit: Duration) -> JoinHandle<Result<LockGuard>> {
    let before = locks.waiters();
    let waiter = Handle::current().spawn(locks.lock("key").wait(limit).acquire());
    while locks.waiters() == before {
        tokio::task::yield_now().await;
    }
    waiter
}

async fn error_of(waiter: JoinHandle<Result<LockGuard>>) -> Error {
    waiter.await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn w2_a_default_wait_for_a_silent_server_is_no_contention() {
    for (fault, code) in SILENCE {
        let backend = plain();
        every_acquire(&backend, fault);
        let locks = LockManager::new(backend);
        let start = Instant::now();
        let error = locks.lock("key").acquire().await.unwrap_err();
        assert_eq!(error.code(), code, "{fault:?}: {error}");
        assert_eq!(error.operation(), Operation::Acquire);
        assert!(error.key().is_some(), "{error}");
        assert!(start.elapsed() <= 5 * SECOND, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn w2_those_behind_in_the_queue_get_the_same_code() {
    for (fault, code) in SILENCE {
        let backend = plain();
        every_acquire(&backend, fault);
        let locks = LockManager::new(backend);
        let mut waiters = Vec::new();
        for _ in 0..3 {
            waiters.push(waits(&locks, 3 * SECOND).await);
        }
        for waiter in waiters {
            let error = error_of(waiter).await;
            assert_eq!(error.code(), code, "{fault:?}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn w2_a_waiter_behind_a_hanging_attempt_gets_no_earlier_error() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    // One attempt fails, and the next one hangs.
    backend.next(Operation::Acquire, Fault::Fail(ErrorCode::ServiceUnavailable));
    backend.next(Operation::Acquire, Fault::Hang);
    let first = waits(&locks, 20 * SECOND).await;
    sleep(2 * SECOND).await;
    assert_eq!(backend.count(Operation::Acquire), 2);
    let newcomer = waits(&locks, 3 * SECOND).await;
    assert_eq!(error_of(newcomer).await.code(), ErrorCode::NetworkTimeout);
    assert_eq!(error_of(first).await.code(), ErrorCode::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn w2_retries_that_are_used_up_by_failures_are_no_contention() {
    for (code, retries) in [(ErrorCode::ServiceUnavailable, 0), (ErrorCode::RateLimited, 3)] {
        let backend = plain();
        every_acquire(&backend, Fault::Fail(code));
        let locks = LockManager::new(backend.clone());
        let request = locks.lock("key").wait(HOUR).max_retries(retries);
        assert_eq!(request.acquire().await.unwrap_err().code(), code);
        assert_eq!(backend.count(Operation::Acquire), usize::try_from(retries).unwrap() + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn w2_retries_that_are_used_up_by_answers_are_contention() {
    let backend = plain();
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let error = locks.lock("key").wait(HOUR).max_retries(2).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout, "{error}");
}

#[tokio::test(start_paused = true)]
async fn w2_one_answer_during_the_wait_is_enough_for_contention() {
    let backend = plain();
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    // The first attempt is answered, then the server hangs.
    backend.on_call(|operation, before| match (operation, before) {
        (Operation::Acquire, 2..) => Fault::Hang,
        _ => Fault::None,
    });
    let (first, behind) = (waits(&locks, 3 * SECOND).await, waits(&locks, 3 * SECOND).await);
    for waiter in [first, behind] {
        let error = error_of(waiter).await;
        assert_eq!(error.code(), ErrorCode::AcquisitionTimeout, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn w2_a_lease_that_was_reported_to_others_counts_only_while_it_lasts() {
    let backend = plain();
    let ttl = 4 * SECOND;
    let held = LockManager::new(backend.clone()).lock("key").ttl(ttl).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    // The first waiter learns of the lease. Then the server hangs.
    backend.on_call(|operation, before| match (operation, before) {
        (Operation::Acquire, 2..) => Fault::Hang,
        _ => Fault::None,
    });
    let first = waits(&locks, HOUR).await;
    sleep(MS).await;
    let while_it_lasts = waits(&locks, 2 * SECOND).await;
    let after_its_end = waits(&locks, 8 * SECOND).await;
    let error = error_of(while_it_lasts).await;
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout, "{error}");
    let error = error_of(after_its_end).await;
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    first.abort();
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn w2_a_newcomer_is_not_given_an_error_from_before_its_time() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::Fail(ErrorCode::ServiceUnavailable));
    backend.next(Operation::Acquire, Fault::Hang);
    let first = waits(&locks, HOUR).await;
    sleep(10 * MS).await;
    assert_eq!(backend.count(Operation::Acquire), 1, "the first waiter pauses after its failure");
    // It gives up before the next attempt.
    let newcomer = waits(&locks, 10 * MS).await;
    assert_eq!(error_of(newcomer).await.code(), ErrorCode::NetworkTimeout);
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn w2_try_acquire_says_the_same() {
    for (fault, code) in SILENCE {
        let backend = plain();
        every_acquire(&backend, fault);
        let locks = LockManager::new(backend);
        assert_eq!(locks.lock("key").try_acquire().await.unwrap_err().code(), code);
    }
}

#[tokio::test(start_paused = true)]
async fn w2_a_key_that_this_process_holds_is_contention_although_the_server_is_silent() {
    for (fault, _) in SILENCE {
        let backend = plain();
        let locks = LockManager::new(backend.clone());
        let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        every_acquire(&backend, fault);
        let error = locks.lock("key").acquire().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::AcquisitionTimeout, "{fault:?}: {error}");
        assert!(error.to_string().contains("this process itself holds the key"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn t4_a_grant_whose_answer_comes_after_the_ttl_is_no_lock() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::DelayReply(400 * MS));
    let late = locks.lock("key").ttl(300 * MS).try_acquire().await;
    assert_eq!(late.unwrap_err().code(), ErrorCode::NetworkTimeout);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());

    // A wait repeats the attempt with the same id, and gets a lease that it can rely on.
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::DelayReply(400 * MS));
    let guard = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    assert!(!guard.is_lost());
}

#[tokio::test(start_paused = true)]
async fn w2_a_release_that_the_server_does_not_answer_is_no_contention() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    for operation in [Operation::Release, Operation::Acquire] {
        backend.next_n(operation, 99, Fault::Fail(ErrorCode::ServiceUnavailable));
    }
    drop(guard);
    let error = locks.lock("key").acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

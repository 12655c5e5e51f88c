//! C1: a request that was not sent is dropped with its caller, and nothing is undone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::plain;
use syncguard::{ErrorCode, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::{Instant, timeout};

const MS: Duration = Duration::from_millis(1);

fn every_acquire(backend: &FaultyBackend, fault: Fault) {
    backend.on_call(move |operation, _| match operation {
        Operation::Acquire => fault,
        _ => Fault::None,
    });
}

#[tokio::test(start_paused = true)]
async fn c1_a_request_that_was_not_sent_is_dropped_with_its_caller() {
    let backend = plain();
    every_acquire(&backend, Fault::HangUnsent);
    let locks = LockManager::new(backend.clone());
    for n in 0..1_000 {
        let request = locks.lock(format!("key {n}").as_str());
        assert!(timeout(MS, request.acquire()).await.is_err());
        assert!(timeout(MS, locks.lock("other").try_acquire()).await.is_err());
    }
    // Nothing goes on in the background, so shutdown has nothing to wait for.
    let now = Instant::now();
    locks.shutdown().await.unwrap();
    assert_eq!(now.elapsed(), Duration::ZERO);
    assert_eq!(backend.count(Operation::Release), 0);
}

#[tokio::test(start_paused = true)]
async fn c1_a_request_that_failed_before_it_was_sent_is_not_undone() {
    let code = ErrorCode::ServiceUnavailable;
    for (fault, undone) in [(Fault::FailUnsent(code), false), (Fault::Fail(code), true)] {
        let backend = plain();
        every_acquire(&backend, fault);
        let locks = LockManager::new(backend.clone());
        assert_eq!(locks.lock("key").try_acquire().await.unwrap_err().code(), code);
        assert_eq!(locks.lock("key").acquire().await.unwrap_err().code(), code);
        locks.shutdown().await.unwrap();
        assert_eq!(backend.count(Operation::Release) > 0, undone, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn c1_an_attempt_without_an_answer_is_undone_although_later_ones_were_not_sent() {
    let backend = plain();
    every_acquire(&backend, Fault::FailUnsent(ErrorCode::ServiceUnavailable));
    backend.next(Operation::Acquire, Fault::LandLate(3_000 * MS));
    let locks = LockManager::new(backend.clone());
    let waiter = locks.lock("key").wait(2_000 * MS).acquire();
    assert_eq!(waiter.await.unwrap_err().code(), ErrorCode::ServiceUnavailable);
    locks.shutdown().await.unwrap();
    assert!(backend.count(Operation::Release) > 0);
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn c1_waiting_goes_on_when_there_is_a_connection_again() {
    let backend = plain();
    every_acquire(&backend, Fault::FailUnsent(ErrorCode::ServiceUnavailable));
    let locks = LockManager::new(backend.clone());
    let waiter = tokio::runtime::Handle::current().spawn(locks.lock("key").acquire());
    tokio::time::sleep(2_000 * MS).await;
    backend.on_call(|_, _| Fault::None);
    let recovered = Instant::now();
    let guard = waiter.await.unwrap().unwrap();
    assert!(recovered.elapsed() < 1_000 * MS, "{:?}", recovered.elapsed());
    assert!(guard.release().await.unwrap());
}

/// Requests that were sent and never answered, in a number that no backend of this workspace reaches.
#[tokio::test(start_paused = true)]
async fn c1_undos_are_bounded_and_leave_connections_to_callers() {
    let backend = plain();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let reports = reported.clone();
    let locks = LockManager::builder(backend.clone())
        .on_release_error(move |error| reports.lock().unwrap().push(error.code()))
        .build();
    let (most, under_way) = (Arc::new(AtomicUsize::new(0)), backend.clone());
    let highest = most.clone();
    backend.on_call(move |operation, _| match operation {
        Operation::Acquire => Fault::Fail(ErrorCode::NetworkTimeout),
        Operation::Release => {
            highest.fetch_max(under_way.held() + 1, Ordering::Relaxed);
            Fault::HoldRequest
        }
        _ => Fault::None,
    });
    for n in 0..1_500 {
        let request = locks.lock(format!("key {n}").as_str());
        assert!(request.try_acquire().await.is_err());
    }
    tokio::time::sleep(MS).await;
    assert_eq!(most.load(Ordering::Relaxed), 8);
    assert_eq!(*reported.lock().unwrap(), vec![ErrorCode::RateLimited; 1_500 - 1_024]);
    backend.open();
    // All the others are carried out, and then there is room again.
    locks.shutdown().await.unwrap();
    assert!(backend.count(Operation::Release) >= 1_024);
    assert!(locks.lock("one more").try_acquire().await.is_err());
    assert_eq!(reported.lock().unwrap().len(), 1_500 - 1_024);
}

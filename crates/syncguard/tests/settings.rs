//! Defaults of a manager, settings of a request, and their limits.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::{instants, millis, plain};
use syncguard::{Backoff, CancellationToken, ErrorCode, Jitter, LockManager, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_request_takes_its_defaults_from_the_manager() {
    let backend = plain();
    let _held = LockManager::new(backend.clone()).lock("held").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::builder(backend.clone())
        .ttl(7 * SECOND)
        .wait(3 * SECOND)
        .backoff(Backoff::fixed(500 * MS).with_jitter(Jitter::None))
        .max_hold(20 * SECOND)
        .keep_alive()
        .build();

    let guard = locks.lock("key").acquire().await.unwrap();
    assert_eq!(guard.remaining(), 7 * SECOND);
    sleep(19 * SECOND).await;
    assert!(!guard.is_lost(), "it is kept alive");
    sleep(SECOND).await;
    assert!(guard.is_lost(), "until `max_hold`");

    let (start, before) = (Instant::now(), backend.count(Operation::Acquire));
    assert!(locks.lock("held").acquire().await.is_err());
    assert_eq!(millis(start, Instant::now()), 3_000);
    assert_eq!(backend.count(Operation::Acquire) - before, 6);
}

#[tokio::test(start_paused = true)]
async fn a_request_may_differ_from_the_manager() {
    let backend = plain();
    let _held = LockManager::new(backend.clone()).lock("held").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::builder(backend.clone())
        .ttl(7 * SECOND)
        .wait(3 * SECOND)
        .max_retries(1)
        .backoff(Backoff::fixed(500 * MS).with_jitter(Jitter::None))
        .max_hold(SECOND)
        .keep_alive()
        .build();

    let request = locks.lock("key").ttl(9 * SECOND).without_keep_alive().max_hold(HOUR);
    let guard = request.acquire().await.unwrap();
    assert_eq!(guard.remaining(), 9 * SECOND);
    sleep(9 * SECOND).await;
    assert!(guard.is_lost());
    assert_eq!(backend.count(Operation::Extend), 0);

    let start = Instant::now();
    let error = locks.lock("held").acquire().await.unwrap_err();
    assert_eq!((error.code(), millis(start, Instant::now())), (ErrorCode::AcquisitionTimeout, 500));

    let (start, before) = (Instant::now(), backend.count(Operation::Acquire));
    let every_second = Backoff::fixed(SECOND).with_jitter(Jitter::None);
    let request = locks.lock("held").wait(5_500 * MS).max_retries(99).backoff(every_second);
    assert!(request.acquire().await.is_err());
    assert_eq!(millis(start, Instant::now()), 5_500);
    assert_eq!(backend.count(Operation::Acquire) - before, 6);
}

#[tokio::test(start_paused = true)]
async fn run_renews_unless_the_manager_or_the_request_says_otherwise() {
    let backend = plain();
    let renewals = async |locks: &LockManager, without: bool| {
        let before = backend.count(Operation::Extend);
        let mut request = locks.lock("key").ttl(SECOND);
        if without {
            request = request.without_keep_alive();
        }
        let work = async |_: &_| -> Result<()> {
            sleep(900 * MS).await;
            Ok(())
        };
        request.run(work).await.unwrap();
        backend.count(Operation::Extend) - before
    };
    let plain = LockManager::new(backend.clone());
    assert_eq!(renewals(&plain, false).await, 2);
    assert_eq!(renewals(&plain, true).await, 0);
    let without = LockManager::builder(backend.clone()).without_keep_alive().build();
    assert_eq!(renewals(&without, false).await, 0);
    // `acquire` does not, by default.
    let guard = plain.lock("key").ttl(SECOND).acquire().await.unwrap();
    sleep(900 * MS).await;
    drop(guard);
    assert_eq!(backend.count(Operation::Extend), 2);
}

#[tokio::test(start_paused = true)]
async fn adopt_and_try_acquire_follow_the_manager_too() {
    let backend = plain();
    let locks = LockManager::builder(backend.clone()).ttl(SECOND).keep_alive().build();
    let guard = locks.lock("key").try_acquire().await.unwrap().unwrap();
    sleep(5 * SECOND).await;
    assert!(!guard.is_lost());
    let lease = guard.detach();
    let guard = locks.lock("key").adopt(&lease).await.unwrap().unwrap();
    sleep(5 * SECOND).await;
    assert!(!guard.is_lost());
    assert!(guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_request_is_a_request_of_its_own() {
    let locks = LockManager::new(plain());
    let token = CancellationToken::new();
    let template = locks.lock("key").ttl(9 * SECOND).wait(SECOND).cancel(token.clone());
    let first = template.clone().acquire().await.unwrap();
    assert_eq!(first.remaining(), 9 * SECOND);
    let error = template.clone().acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    let id = first.id().clone();
    assert!(first.release().await.unwrap());
    let second = template.clone().ttl(4 * SECOND).acquire().await.unwrap();
    assert_eq!(second.remaining(), 4 * SECOND);
    assert_ne!(*second.id(), id, "an id is never used again");
    assert!(second.release().await.unwrap());
    assert_eq!(template.clone().acquire().await.unwrap().remaining(), 9 * SECOND);
    // The token ends the waits of all clones.
    token.cancel();
    for request in [template.clone(), template] {
        assert_eq!(request.acquire().await.unwrap_err().code(), ErrorCode::Aborted);
    }
    let bad = locks.lock("");
    for request in [bad.clone(), bad] {
        assert_eq!(request.acquire().await.unwrap_err().code(), ErrorCode::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn t3_a_ttl_is_rounded_up_to_whole_milliseconds() {
    let locks = LockManager::new(plain());
    let (nano, micro) = (Duration::from_nanos(1), Duration::from_micros(1));
    for (ttl, rounded) in [(nano, 1), (micro, 1), (10 * SECOND / 3, 3_334), (2_500 * micro, 3)] {
        let guard = locks.lock("key").ttl(ttl).acquire().await.unwrap();
        assert_eq!(guard.remaining(), rounded * MS, "{ttl:?}");
        guard.release().await.unwrap();
    }
    let guard = locks.lock("key").acquire().await.unwrap();
    guard.extend(10 * SECOND / 3).await.unwrap();
    assert_eq!(guard.remaining(), 3_334 * MS);
    let lease = locks.extend_by_id(guard.id(), micro).await.unwrap().unwrap();
    assert_eq!(lease.fence(), guard.fence());
}

#[tokio::test(start_paused = true)]
async fn t3_a_ttl_of_zero_or_too_long_is_refused_and_says_which() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("held").acquire().await.unwrap();
    let calls = backend.history().len();
    for (ttl, word) in [(Duration::ZERO, "zero"), (Duration::MAX, "too long")] {
        let from_manager = LockManager::builder(backend.clone()).ttl(ttl).build();
        let errors = [
            locks.lock("key").ttl(ttl).acquire().await.unwrap_err(),
            locks.lock("key").ttl(ttl).try_acquire().await.unwrap_err(),
            locks.lock("key").ttl(ttl).adopt(&guard.lease()).await.unwrap_err(),
            locks.lock("key").ttl(ttl).run(async |_| -> Result<()> { Ok(()) }).await.unwrap_err(),
            locks.extend_by_id(guard.id(), ttl).await.unwrap_err(),
            guard.extend(ttl).await.unwrap_err(),
            from_manager.lock("key").acquire().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    assert_eq!(backend.history().len(), calls, "refused before any call");
}

#[tokio::test(start_paused = true)]
async fn w3_a_backoff_of_zero_makes_at_most_a_hundred_attempts_a_second() {
    for jitter in [Jitter::None, Jitter::Equal, Jitter::Full] {
        let backend = plain();
        let others = LockManager::new(backend.clone());
        let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
        let locks = LockManager::new(backend.clone());
        let at_once = Backoff::fixed(Duration::ZERO).with_jitter(jitter);
        let request = locks.lock("key").wait(10 * SECOND).backoff(at_once);
        assert!(request.acquire().await.is_err());
        let attempts = instants(&backend, Operation::Acquire);
        assert!(attempts.len() <= 1 + 10 * 100 + 1, "{} in 10 s", attempts.len());
        assert!(attempts.len() > 500, "{} in 10 s", attempts.len());
    }
}

#[tokio::test(start_paused = true)]
async fn extreme_durations_do_not_panic() {
    let locks = LockManager::builder(plain()).wait(Duration::MAX).max_hold(Duration::MAX).build();
    let longest = Duration::from_millis(1 << 52);
    let request = locks.lock("key").ttl(longest).backoff(Backoff::exponential(Duration::MAX));
    let guard = request.clone().keep_alive().acquire().await.unwrap();
    assert_eq!(guard.remaining(), longest);
    let token = guard.lost_token();
    let waiter = Handle::current().spawn(request.acquire());
    sleep(HOUR).await;
    guard.extend(longest).await.unwrap();
    assert!(!token.is_cancelled() && !waiter.is_finished());
    assert!(guard.release().await.unwrap());
    drop(waiter.await.unwrap().unwrap());

    let error = locks.lock("other").max_hold(Duration::ZERO).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    let error = locks.lock("other").wait(Duration::ZERO).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

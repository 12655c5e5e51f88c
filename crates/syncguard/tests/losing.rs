//! H6, H8: what ends a lease that its holder still needs, and how often that is reported.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::log::Log;
use support::{instants, millis, plain};
use syncguard::{Error, ErrorCode, LockGuard, LockManager, Operation, Outcome, Result};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend};
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_millis(900);

/// A manager, and the number of losses that it reported.
fn observed(backend: &FaultyBackend) -> (LockManager, impl Fn() -> usize) {
    let losses = Arc::new(Mutex::new(Vec::new()));
    let seen = losses.clone();
    let locks = LockManager::builder(backend.clone())
        .observer(move |event| {
            if event.operation() == Operation::Hold {
                assert_eq!(event.outcome(), Outcome::Failed(ErrorCode::Lost));
                losses.lock().unwrap().push(event.id());
            }
        })
        .build();
    (locks, move || seen.lock().unwrap().len())
}

#[tokio::test(start_paused = true)]
async fn h6_work_without_renewal_that_outlives_its_lease_is_lost() {
    let backend = plain();
    let (locks, losses) = observed(&backend);
    // The server keeps a lease for a second after its TTL, so the release still finds it.
    for late in [MS, 100 * MS, 2_000 * MS] {
        let request = locks.lock("key").ttl(TTL).without_keep_alive();
        let outcome = request.run(async |_| -> Result<()> {
            sleep(TTL + late).await;
            Ok(())
        });
        assert_eq!(outcome.await.unwrap_err().code(), ErrorCode::Lost, "{late:?} late");
        // The release goes on in the background.
        sleep(MS).await;
        assert!(!locks.is_locked("key").await.unwrap());
    }
    assert_eq!(losses(), 3);
    assert_eq!(backend.count(Operation::Extend), 0);
}

#[tokio::test]
async fn h6_work_that_fails_after_its_lease_ended_keeps_its_own_error() {
    let locks = LockManager::new(plain());
    let request = locks.lock("key").ttl(20 * MS).without_keep_alive();
    let outcome = request.run(async |_| -> Result<()> {
        // It does not yield, so it cannot be stopped.
        std::thread::sleep(50 * MS);
        Err(Error::new(ErrorCode::RateLimited, Operation::Run))
    });
    assert_eq!(outcome.await.unwrap_err().code(), ErrorCode::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn h8_max_hold_ends_a_lease_that_is_kept_alive() {
    let backend = plain();
    let (locks, losses) = observed(&backend);
    let request = locks.lock("key").ttl(TTL).keep_alive().max_hold(5 * TTL + 100 * MS);
    let start = Instant::now();
    let guard = request.acquire().await.unwrap();
    let token = guard.lost_token();
    sleep(5 * TTL).await;
    assert!(!guard.is_lost() && !token.is_cancelled());
    assert_eq!(guard.remaining(), 100 * MS);
    guard.lost().await;
    assert_eq!(millis(start, Instant::now()), 4_600);
    assert!(guard.is_lost() && token.is_cancelled() && guard.remaining().is_zero());
    assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
    let renewals = backend.count(Operation::Extend);
    sleep(TTL / 2).await;
    assert_eq!(backend.count(Operation::Extend), renewals, "a renewal after the end");
    assert!(guard.release().await.unwrap(), "the server still had it");
    assert_eq!(losses(), 1);
}

#[tokio::test(start_paused = true)]
async fn h8_max_hold_shorter_than_the_ttl_ends_a_lease_early() {
    let locks = LockManager::new(plain());
    let guard = locks.lock("key").ttl(TTL).max_hold(300 * MS).acquire().await.unwrap();
    assert_eq!(guard.remaining(), 300 * MS);
    let start = Instant::now();
    guard.lost().await;
    assert_eq!(millis(start, Instant::now()), 300);
    guard.extend(TTL).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn h8_max_hold_stops_the_work_of_run() {
    let backend = plain();
    let (locks, losses) = observed(&backend);
    let start = Instant::now();
    let request = locks.lock("key").ttl(TTL).max_hold(4 * TTL);
    let run = request.run(async |_| std::future::pending::<Result<()>>().await);
    let outcome = timeout(60 * TTL, run).await.unwrap();
    assert_eq!(outcome.unwrap_err().code(), ErrorCode::Lost);
    assert_eq!(millis(start, Instant::now()), 3_600);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(losses(), 1);
}

#[tokio::test(start_paused = true)]
async fn h8_a_release_after_max_hold_is_tried_again_while_the_server_has_the_lease() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let request = locks.lock("key").ttl(60 * TTL).keep_alive().max_hold(TTL);
    let guard = request.acquire().await.unwrap();
    guard.lost().await;
    backend.next_n(Operation::Release, 2, Fault::Fail(ErrorCode::ServiceUnavailable));
    drop(guard);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn o3_a_loss_is_one_event_and_one_log_line() {
    async fn at_the_deadline(_: &FaultyBackend, guard: LockGuard) {
        let token = guard.lost_token();
        sleep(2 * TTL).await;
        guard.lost().await;
        token.cancelled().await;
        assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
        let _ = guard.release().await;
    }
    async fn unnoticed_until_its_release(_: &FaultyBackend, guard: LockGuard) {
        sleep(2 * TTL).await;
        let _ = guard.release().await;
    }
    async fn unnoticed_until_it_is_dropped(_: &FaultyBackend, guard: LockGuard) {
        sleep(2 * TTL).await;
        drop(guard);
        sleep(MS).await;
    }
    async fn unnoticed_until_it_is_extended(_: &FaultyBackend, guard: LockGuard) {
        sleep(2 * TTL).await;
        assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
        assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
    }
    async fn as_the_backend_says(backend: &FaultyBackend, guard: LockGuard) {
        let token = guard.lost_token();
        backend.lose_lease("key").await.unwrap();
        assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
        token.cancelled().await;
        guard.lost().await;
        assert!(!guard.release().await.unwrap());
    }

    let (log, _logging) = Log::of_this_thread();
    let mut lost = 0;
    for way in 0..5 {
        let backend = plain();
        let (locks, losses) = observed(&backend);
        let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
        match way {
            0 => at_the_deadline(&backend, guard).await,
            1 => unnoticed_until_its_release(&backend, guard).await,
            2 => unnoticed_until_it_is_dropped(&backend, guard).await,
            3 => unnoticed_until_it_is_extended(&backend, guard).await,
            _ => as_the_backend_says(&backend, guard).await,
        }
        lost += 1;
        assert_eq!(losses(), 1, "{way}");
        assert_eq!(log.warnings("a lease was lost").len(), lost, "{way}");
    }
    assert_eq!(log.warnings("").len(), lost, "{:?}", log.warnings(""));
}

#[tokio::test(start_paused = true)]
async fn h4_a_renewal_that_fails_for_good_is_one_warning() {
    let (log, _logging) = Log::of_this_thread();
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.on_call(|operation, _| match operation {
        Operation::Extend => Fault::Fail(ErrorCode::AuthFailed),
        _ => Fault::None,
    });
    let guard = locks.lock("key").ttl(12 * TTL).keep_alive().acquire().await.unwrap();
    guard.lost().await;
    assert!(backend.count(Operation::Extend) >= 5, "it is tried again");
    let warnings = log.warnings("");
    assert_eq!(warnings.len(), 2, "one for the renewal, and one for the loss: {warnings:#?}");
    assert_eq!(log.warnings("a renewal failed").len(), 1);
    assert_eq!(log.warnings("a lease was lost").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn h4_a_renewal_that_fails_and_recovers_blames_no_blocked_runtime() {
    let (log, _logging) = Log::of_this_thread();
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(12 * TTL).keep_alive().acquire().await.unwrap();
    backend.next_n(Operation::Extend, 5, Fault::Fail(ErrorCode::ServiceUnavailable));
    sleep(24 * TTL).await;
    assert!(!guard.is_lost());
    let warnings = log.warnings("");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("a renewal failed"));
}

#[tokio::test(start_paused = true)]
async fn h4_a_renewal_that_starts_late_says_what_to_do() {
    let (log, _logging) = Log::of_this_thread();
    let locks = LockManager::new(plain());
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    yield_now().await;
    // Late by a seventh of the TTL, which is normal.
    advance(TTL / 3 + TTL / 7).await;
    sleep(MS).await;
    assert_eq!(log.warnings("").len(), 0);
    // Work that blocks the thread.
    advance(TTL / 3 + TTL / 4).await;
    sleep(MS).await;
    let warnings = log.warnings("the runtime was blocked");
    assert_eq!(warnings.len(), 1, "{:?}", log.warnings(""));
    assert!(warnings[0].contains("spawn_blocking"), "{warnings:?}");
    // One warning for each lease.
    advance(TTL / 3 + TTL / 4).await;
    sleep(MS).await;
    assert_eq!(log.warnings("").len(), 1, "{:?}", log.warnings(""));
    assert!(!guard.is_lost());
}

#[tokio::test(start_paused = true)]
async fn h1_is_lost_and_remaining_agree_and_never_go_back() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    let deadline = Instant::now() + TTL;
    // It is sent in time, and answered just after the deadline, when the server still says yes.
    sleep(TTL - 2 * MS).await;
    backend.next(Operation::Extend, Fault::DelayReply(3 * MS));
    let watch = async {
        let mut lost = false;
        for _ in 0..20 {
            assert_eq!(guard.is_lost(), guard.remaining().is_zero());
            assert_eq!(guard.is_lost(), Instant::now() >= deadline);
            assert!(guard.is_lost() || !lost, "a loss was taken back");
            lost = guard.is_lost();
            sleep(MS).await;
        }
    };
    let (extended, ()) = tokio::join!(guard.extend(9 * TTL), watch);
    assert_eq!(extended.unwrap_err().code(), ErrorCode::Lost);
    assert!(guard.is_lost() && guard.remaining().is_zero());
}

#[tokio::test(start_paused = true)]
async fn h1_the_getters_agree_at_the_very_deadline() {
    let locks = LockManager::new(plain());
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    advance(TTL - Duration::from_nanos(1)).await;
    assert!(!guard.is_lost());
    assert_eq!(guard.remaining(), Duration::from_nanos(1));
    advance(Duration::from_nanos(1)).await;
    assert!(guard.is_lost() && guard.remaining().is_zero());
}

#[tokio::test(start_paused = true)]
async fn h5_on_a_store_that_ends_leases_at_their_ttl_the_loss_comes_5_ms_early() {
    for (ttl, margin) in [(TTL, 5), (60 * TTL, 5), (20 * MS, 2), (MS, 0)] {
        let backend = FaultyBackend::new(MemoryBackend::new().with_end_at_ttl());
        let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend));
        let start = Instant::now();
        let guard = locks.lock("key").ttl(ttl).acquire().await.unwrap();
        let successor = Handle::current().spawn(others.lock("key").wait(2 * ttl + TTL).acquire());
        guard.lost().await;
        let lost_after = millis(start, Instant::now());
        assert_eq!(lost_after, ttl.as_millis() - margin, "{ttl:?}");
        let successor = successor.await.unwrap().unwrap();
        assert!(millis(start, Instant::now()) >= ttl.as_millis(), "{ttl:?}");
        assert!(successor.fence() > guard.fence());
    }
}

#[tokio::test(start_paused = true)]
async fn h5_a_renewal_keeps_the_margin() {
    let backend = FaultyBackend::new(MemoryBackend::new().with_end_at_ttl());
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    sleep(TTL / 2).await;
    backend.next(Operation::Extend, Fault::Hang);
    guard.lost().await;
    let renewals = instants(&backend, Operation::Extend);
    assert_eq!(renewals.len(), 2);
    assert_eq!(millis(renewals[0], Instant::now()), TTL.as_millis() - 5);
}

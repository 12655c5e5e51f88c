//! W: when attempts are made, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::{LOSE_REPLY, instants, millis, next_all, plain};
use syncguard::{
    Backend, Backoff, CancellationToken, Capabilities, Error, ErrorCode, Jitter, Key, Lease,
    LockId, LockManager, LockRecord, Operation, Ttl,
};
use syncguard_core::Acquired;
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn no_jitter() -> Backoff {
    Backoff::default().with_jitter(Jitter::None)
}

/// The times of attempts, in milliseconds from `start`.
fn attempts(backend: &FaultyBackend, start: Instant) -> Vec<u128> {
    let calls = instants(backend, Operation::Acquire);
    let since = calls.iter().filter(|call| **call >= start);
    since.map(|call| millis(start, *call)).collect()
}

/// Timers fire at whole milliseconds, so each may add one.
fn assert_near(times: &[u128], expected: &[u128]) {
    let near = |(time, expected): (&u128, &u128)| (*expected..expected + 20).contains(time);
    let all_near = times.iter().zip(expected).all(near);
    assert!(times.len() == expected.len() && all_near, "{times:?} for {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn w1_w2_by_default_it_doubles_from_100_ms_and_gives_up_after_5_s() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    tokio::time::advance(MS).await;

    let start = Instant::now();
    let error = locks.lock("key").backoff(no_jitter()).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    assert_eq!(millis(start, Instant::now()), 5_000);
    assert_near(&attempts(&backend, start), &[0, 100, 300, 700, 1_500, 3_100]);
}

#[tokio::test(start_paused = true)]
async fn w1_by_default_there_are_10_retries() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    tokio::time::advance(MS).await;

    let start = Instant::now();
    let often = Backoff::fixed(10 * MS).with_jitter(Jitter::None);
    let error = locks.lock("key").backoff(often).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    assert_near(&attempts(&backend, start), &[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);

    // If only a wait limit is set, it is the only limit.
    let start = Instant::now();
    let request = locks.lock("key").backoff(often).wait(500 * MS);
    assert!(request.acquire().await.is_err());
    assert!(attempts(&backend, start).len() > 40);
    let start = Instant::now();
    let request = locks.lock("key").backoff(often).wait(500 * MS).max_retries(2);
    assert!(request.acquire().await.is_err());
    assert_eq!(attempts(&backend, start).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn w3_a_pause_is_cut_to_the_time_the_lease_still_has() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    LockManager::new(backend.clone()).lock("key").ttl(1_000 * MS).acquire().await.unwrap().detach();

    tokio::time::advance(MS).await;
    let start = Instant::now();
    let slow = Backoff::fixed(4_500 * MS).with_jitter(Jitter::None);
    let guard = locks.lock("key").backoff(slow).acquire().await.unwrap();
    // The second attempt comes after the TTL and the tolerance.
    assert_near(&attempts(&backend, start), &[0, 1_999]);
    assert_eq!(guard.fence().get(), 2);
}

#[tokio::test(start_paused = true)]
async fn w4_a_transient_failure_is_retried_with_the_same_id() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    next_all(
        &backend,
        Operation::Acquire,
        [LOSE_REPLY, Fault::Fail(ErrorCode::ServiceUnavailable)],
    );
    let guard = locks.lock("key").acquire().await.unwrap();
    // The first attempt was granted, and the third found it: a new id would have been refused.
    assert_eq!(guard.fence().get(), 1);
    assert_eq!(backend.count(Operation::Acquire), 3);
    locks.shutdown().await.unwrap();
    assert!((backend.count(Operation::Release) == 0), "expected no undo");
}

#[tokio::test(start_paused = true)]
async fn w4_a_transient_failure_that_lasts_is_returned_as_it_is() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next_n(Operation::Acquire, 20, Fault::Fail(ErrorCode::RateLimited));
    let start = Instant::now();
    // With jitter, ten short pauses after failures may take less than the wait limit.
    let error = locks.lock("key").backoff(no_jitter()).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RateLimited);
    assert_eq!(error.key(), Some(syncguard::Fingerprint::of("key")));
    // By the retries or by the wait limit, whichever comes first with this jitter.
    let gave_up = millis(start, Instant::now());
    assert!((3_000..=5_000).contains(&gave_up), "after {gave_up} ms");
}

#[tokio::test(start_paused = true)]
async fn w4_other_failures_return_at_once() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    for code in [ErrorCode::AuthFailed, ErrorCode::Internal, ErrorCode::InvalidArgument] {
        backend.next(Operation::Acquire, Fault::Fail(code));
        let start = Instant::now();
        assert_eq!(locks.lock("key").acquire().await.unwrap_err().code(), code);
        assert_eq!(attempts(&backend, start), [0]);
        tokio::time::advance(MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn w2_the_limit_is_hard_while_an_attempt_hangs_and_its_grant_is_released() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::DelayRequest(700 * MS));
    let start = Instant::now();
    let error = locks.lock("key").wait(300 * MS).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
    assert_eq!(millis(start, Instant::now()), 300);

    locks.shutdown().await.unwrap();
    assert_eq!(millis(start, Instant::now()), 700);
    assert_eq!(backend.count(Operation::Release), 1);
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w2_an_attempt_without_an_answer_is_undone_by_id() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, LOSE_REPLY);
    let error = locks.lock("key").max_retries(0).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w5_a_token_ends_the_wait() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let token = CancellationToken::new();
    let waiting =
        Handle::current().spawn(locks.lock("key").wait(HOUR).cancel(token.clone()).acquire());
    tokio::time::sleep(50 * MS).await;
    token.cancel();
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);

    // A token that is cancelled before sends nothing.
    let before = backend.count(Operation::Acquire);
    let request = locks.lock("other").cancel(token);
    assert_eq!(request.try_acquire().await.unwrap_err().code(), ErrorCode::Aborted);
    assert_eq!(backend.count(Operation::Acquire), before);
}

#[tokio::test(start_paused = true)]
async fn try_acquire_makes_one_attempt() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _held = LockManager::new(backend.clone()).lock("key").acquire().await.unwrap();
    assert!(locks.lock("key").try_acquire().await.unwrap().is_none());
    assert_eq!(backend.count(Operation::Acquire), 2);

    backend.next(Operation::Acquire, Fault::Hang);
    let error = locks.lock("other").wait(100 * MS).try_acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_waits_and_refuses_requests() {
    let locks = LockManager::new(plain());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiting = Handle::current().spawn(locks.lock("key").wait(HOUR).acquire());
    tokio::time::sleep(MS).await;
    locks.shutdown().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    assert_eq!(locks.lock("new").acquire().await.unwrap_err().code(), ErrorCode::Aborted);
    assert!(held.release().await.unwrap(), "expected the guard to survive the shutdown");
}

#[tokio::test(start_paused = true)]
async fn w2_a_wait_of_zero_is_refused() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let request = || locks.lock("key").wait(Duration::ZERO);
    assert_eq!(request().acquire().await.unwrap_err().code(), ErrorCode::InvalidArgument);
    assert_eq!(request().try_acquire().await.unwrap_err().code(), ErrorCode::InvalidArgument);
    assert!((backend.count(Operation::Acquire) == 0));
}

#[tokio::test(start_paused = true)]
async fn w2_an_acquire_that_lands_after_its_undo_is_undone_too() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::LandLate(700 * MS));
    assert!(locks.lock("key").max_retries(0).acquire().await.is_err());
    locks.shutdown().await.unwrap();
    tokio::time::sleep(HOUR / 120).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w4_an_attempt_that_lands_after_the_release_of_a_later_one_is_undone() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::LandLate(700 * MS));
    let guard = locks.lock("key").acquire().await.unwrap();
    assert!(guard.release().await.unwrap());
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());

    // A detached lease is not undone.
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, LOSE_REPLY);
    locks.lock("other").ttl(HOUR).acquire().await.unwrap().detach();
    locks.shutdown().await.unwrap();
    assert!(locks.is_locked("other").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w3_spurious_notifications_are_no_tight_loop() {
    /// Notifies at once without a reason, and reports the longest possible time left.
    #[derive(Clone, Debug)]
    struct Spurious(FaultyBackend);

    impl Backend for Spurious {
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities().with_notifications()
        }
        async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired, Error> {
            self.0.acquire(key, id, ttl).await?;
            Ok(Acquired::Held { remaining: Some(Duration::MAX) })
        }
        async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>, Error> {
            self.0.extend(lease, ttl).await
        }
        async fn release(&self, lease: &Lease) -> Result<bool, Error> {
            self.0.release(lease).await
        }
        async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>, Error> {
            self.0.extend_by_id(id, ttl).await
        }
        async fn release_by_id(&self, id: &LockId) -> Result<bool, Error> {
            self.0.release_by_id(id).await
        }
        async fn get(&self, key: &Key) -> Result<Option<LockRecord>, Error> {
            self.0.get(key).await
        }
        async fn find(&self, id: &LockId) -> Result<Option<LockRecord>, Error> {
            self.0.find(id).await
        }
        fn notified(&self, _key: &Key) -> impl Future<Output = ()> + Send + 'static {
            std::future::ready(())
        }
    }

    let backend = plain();
    let locks = LockManager::new(Spurious(backend.clone()));
    let request = locks.lock("key").wait(1_000 * MS);
    assert_eq!(request.acquire().await.unwrap_err().code(), ErrorCode::AcquisitionTimeout);
    let attempts = backend.count(Operation::Acquire);
    assert!((500..=1_010).contains(&attempts), "{attempts} attempts in a second");
}

#[tokio::test(start_paused = true)]
async fn w4_every_attempt_that_lands_late_is_undone() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let late = [Fault::LandLate(3 * MS), Fault::LandLate(30 * MS)];
    next_all(&backend, Operation::Acquire, late);
    let request = locks.lock("key").ttl(HOUR).max_retries(1).backoff(Backoff::fixed(10 * MS));
    assert!(request.acquire().await.is_err());
    // A shutdown would not show it: an undo that ends too early is over before the second attempt
    // lands.
    tokio::time::sleep(HOUR / 120).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

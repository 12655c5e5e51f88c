//! H: renewal, loss and release, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{LOSE_REPLY, instants, millis, next_all, plain};
use syncguard::{Error, ErrorCode, LockManager, Operation, Outcome, Reason, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_millis(900);

#[tokio::test(start_paused = true)]
async fn h4_a_keep_alive_renews_at_a_third_of_the_ttl() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let start = Instant::now();
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    sleep(3 * TTL + 50 * MS).await;
    let renewals = instants(&backend, Operation::Extend);
    let times: Vec<_> = renewals.iter().map(|call| millis(start, *call)).collect();
    assert!((280..=301).contains(&times[0]), "{times:?}");
    let expected: Vec<_> = (0..9).map(|n| times[0] + n * 300).collect();
    let late = times.iter().zip(&expected).map(|(time, expected)| time.abs_diff(*expected));
    assert!(times.len() == 9 && late.max() <= Some(1), "{times:?}");
    assert!(!guard.is_lost());
    assert!(guard.release().await.unwrap());

    sleep(2 * TTL).await;
    assert_eq!(
        backend.count(Operation::Extend),
        renewals.len(),
        "expected no renewal after the release"
    );
}

#[tokio::test(start_paused = true)]
async fn h4_leases_are_renewed_together() {
    let backend = plain();
    let locks = LockManager::builder(backend.clone()).ttl(30_000 * MS).keep_alive().build();
    let mut guards = Vec::new();
    for n in 0..100 {
        guards.push(locks.lock(format!("key {n}").as_str()).acquire().await.unwrap());
        sleep(MS).await;
    }
    sleep(11_000 * MS).await;
    let mut renewals = instants(&backend, Operation::Extend);
    assert_eq!(renewals.len(), 100);
    renewals.dedup();
    assert!(renewals.len() <= 2, "expected at most two moments for 100 ms, got {renewals:?}");
    drop(guards);
}

#[tokio::test(start_paused = true)]
async fn h4_a_failed_renewal_is_no_loss() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    let failures = [
        Fault::Fail(ErrorCode::ServiceUnavailable),
        Fault::Fail(ErrorCode::AuthFailed),
        LOSE_REPLY,
    ];
    next_all(&backend, Operation::Extend, failures);
    sleep(2 * TTL).await;
    assert!(!guard.is_lost());
    // The first renewal fails at about 300 ms. Each retry follows after a twelfth of the TTL.
    assert!(backend.count(Operation::Extend) > failures.len());
}

#[tokio::test(start_paused = true)]
async fn h5_loss_is_signalled_at_the_deadline_while_the_renewal_hangs() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    // The request takes 100 ms, which the holder must not count as lease time (T4).
    backend.next(Operation::Acquire, Fault::DelayRequest(100 * MS));
    backend.next(Operation::Extend, Fault::Hang);
    let start = Instant::now();
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    assert_eq!(guard.remaining(), 800 * MS);
    let token = guard.lost_token();
    assert!(!guard.is_lost() && !token.is_cancelled());
    guard.lost().await;
    assert_eq!(millis(start, Instant::now()), 900);
    assert!(guard.is_lost() && token.is_cancelled());
    assert_eq!(guard.remaining(), Duration::ZERO);
    assert_eq!(guard.extend(TTL).await.unwrap_err().code(), ErrorCode::Lost);
}

#[tokio::test(start_paused = true)]
async fn h5_loss_is_signalled_as_soon_as_the_backend_says_so() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let start = Instant::now();
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    assert!(locks.release_by_id(guard.id()).await.unwrap());
    guard.lost().await;
    assert!((280..=301).contains(&millis(start, Instant::now())));
    assert!(!guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn h5_without_keep_alive_the_deadline_is_the_signal() {
    let locks = LockManager::new(plain());
    let start = Instant::now();
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    sleep(500 * MS).await;
    guard.extend(TTL).await.unwrap();
    guard.lost().await;
    assert_eq!(millis(start, Instant::now()), 1_400);
}

#[tokio::test(start_paused = true)]
async fn t4_a_shorter_ttl_whose_reply_is_lost_counts_at_once() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    backend.next(Operation::Extend, LOSE_REPLY);
    assert!(guard.extend(200 * MS).await.is_err());
    assert_eq!(guard.remaining(), 200 * MS);
    // A longer TTL counts only after the reply.
    backend.next(Operation::Extend, LOSE_REPLY);
    assert!(guard.extend(2 * TTL).await.is_err());
    assert_eq!(guard.remaining(), 200 * MS);
    guard.extend(2 * TTL).await.unwrap();
    assert_eq!(guard.remaining(), 2 * TTL);
}

#[tokio::test(start_paused = true)]
async fn h7_a_release_does_not_wait_for_a_renewal_that_hangs() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Extend, Fault::Hang);
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    sleep(400 * MS).await;
    assert_eq!(backend.count(Operation::Extend), 1);
    assert!(timeout(100 * MS, guard.release()).await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn h2_a_failed_release_returns_its_error_and_goes_on_in_the_background() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").acquire().await.unwrap();
    backend.next_n(Operation::Release, 3, Fault::Fail(ErrorCode::ServiceUnavailable));
    assert_eq!(guard.release().await.unwrap_err().code(), ErrorCode::ServiceUnavailable);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(backend.count(Operation::Release), 4);
}

fn reporting(backend: &FaultyBackend) -> (LockManager, Arc<Mutex<Vec<String>>>) {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = reports.clone();
    let locks = LockManager::builder(backend.clone())
        .on_release_error(move |error: &Error| {
            sink.lock().unwrap().push(error.to_string());
            panic!("a callback that panics");
        })
        .build();
    (locks, reports)
}

#[tokio::test(start_paused = true)]
async fn h2_a_background_release_that_fails_for_good_is_reported_once() {
    let backend = plain();
    let (locks, reports) = reporting(&backend);
    let key = syncguard::Fingerprint::of("key");
    drop(locks.lock("key").acquire().await.unwrap());
    backend.next(Operation::Release, Fault::Fail(ErrorCode::AuthFailed));
    locks.shutdown().await.unwrap();
    assert_eq!(*reports.lock().unwrap(), [format!("release of key {key}: AuthFailed")]);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_gives_up_at_its_limit() {
    let backend = plain();
    let locks = LockManager::builder(backend.clone()).shutdown_limit(500 * MS).build();
    backend.next(Operation::Release, Fault::Hang);
    drop(locks.lock("key").acquire().await.unwrap());
    let start = Instant::now();
    assert_eq!(locks.shutdown().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    assert_eq!(millis(start, Instant::now()), 500);
}

#[test]
fn h2_a_guard_may_be_dropped_outside_a_runtime_and_after_its_runtime_is_gone() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let backend = plain();
    let (locks, reports) = reporting(&backend);
    let outside = runtime.block_on(locks.lock("outside").acquire()).unwrap();
    let after = runtime.block_on(locks.lock("after").acquire()).unwrap();

    drop(outside);
    runtime.block_on(locks.shutdown()).unwrap();
    assert!(!runtime.block_on(locks.is_locked("outside")).unwrap());
    assert!(reports.lock().unwrap().is_empty());

    drop(runtime);
    drop(after);
    let key = syncguard::Fingerprint::of("after");
    assert_eq!(
        *reports.lock().unwrap(),
        [format!(
            "release of key {key}: Aborted: no runtime is left to send the release: set one with LockManagerBuilder::runtime"
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn h6_run_stops_the_work_with_lost() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Extend, Fault::Hang);
    let start = Instant::now();
    let request = locks.lock("key").ttl(TTL).keep_alive();
    let error =
        request.run(async |_| std::future::pending::<Result<()>>().await).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Lost);
    assert_eq!(millis(start, Instant::now()), 900);
}

#[tokio::test(start_paused = true)]
async fn h6_run_without_keep_alive_stops_the_work_at_the_ttl() {
    let locks = LockManager::new(plain());
    let (request, ended) = (locks.lock("key").ttl(TTL).without_keep_alive(), AtomicU32::new(0));
    let outlived = request.run(async |_| -> Result<()> {
        sleep(3 * TTL).await;
        ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    assert_eq!(outlived.await.unwrap_err().code(), ErrorCode::Lost);
    assert_eq!(ended.load(Ordering::SeqCst), 0, "the work went on without its lease");
}

/// Work that never yields cannot be stopped, but it must not look like a success.
#[tokio::test]
async fn h6_work_that_blocks_past_its_lease_is_lost() {
    let locks = LockManager::new(plain());
    let outlived =
        locks.lock("key").ttl(20 * MS).without_keep_alive().run(async |_| -> Result<()> {
            std::thread::sleep(50 * MS);
            Ok(())
        });
    assert_eq!(outlived.await.unwrap_err().code(), ErrorCode::Lost);
}

#[tokio::test(start_paused = true)]
async fn an_observer_sees_every_operation_and_its_reason() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let backend = plain();
    let locks = LockManager::builder(backend.clone())
        .observer(move |event| {
            let names = (event.raw_key().is_some(), event.raw_id().is_some());
            let text = format!("{:?} {:?}", event.operation(), event.outcome());
            sink.lock().unwrap().push((text, names, event.duration()));
            panic!("an observer that panics");
        })
        .build();
    backend.next(Operation::Acquire, Fault::DelayRequest(20 * MS));
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    assert!(locks.lock("key").try_acquire().await.unwrap().is_none());
    assert!(locks.owns(guard.id()).await.unwrap());
    sleep(TTL + 1_000 * MS).await;
    assert!(!guard.release().await.unwrap());
    assert!(!locks.is_locked("key").await.unwrap());
    backend.next(Operation::Get, Fault::Fail(ErrorCode::AuthFailed));
    assert!(locks.get("key").await.is_err());

    let events = events.lock().unwrap();
    let texts: Vec<_> = events.iter().map(|event| event.0.as_str()).collect();
    assert_eq!(
        texts,
        [
            "Acquire Done",
            "Wait Done",
            "Acquire Refused(Locked)",
            "Find Done",
            "Hold Failed(Lost)",
            "Release Refused(Expired)",
            "Get Refused(NotFound)",
            "Get Failed(AuthFailed)",
        ]
    );
    assert!(events.iter().all(|event| event.1 == (false, false)), "raw names were not asked for");
    assert_eq!(events[0].2, 20 * MS);
}

#[tokio::test(start_paused = true)]
async fn o1_a_lease_that_was_ended_is_not_called_expired() {
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let sink = outcomes.clone();
    let locks = LockManager::builder(plain())
        .observer(move |event| sink.lock().unwrap().push(event.outcome()))
        .build();
    let guard = locks.lock("key").acquire().await.unwrap();
    locks.release_by_id(guard.id()).await.unwrap();
    assert!(guard.extend(TTL).await.is_err());
    assert!(!guard.release().await.unwrap());
    let (done, gone) = (Outcome::Done, Outcome::Refused(Reason::NotFound));
    let lost = Outcome::Failed(ErrorCode::Lost);
    // The attempt, the wait, the release by id, the late extend, the loss, the late release.
    assert_eq!(*outcomes.lock().unwrap(), [done, done, done, gone, lost, gone]);
}

#[tokio::test(start_paused = true)]
async fn h5_a_loss_is_final_although_the_extension_succeeds() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    backend.next(Operation::Extend, Fault::DelayRequest(TTL + 100 * MS));
    assert_eq!(guard.extend(9 * TTL).await.unwrap_err().code(), ErrorCode::Lost);
    assert!(guard.is_lost());
    assert_eq!(guard.remaining(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn h5_the_token_is_cancelled_when_the_keep_alive_task_ends() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Extend, Fault::Panic);
    let guard = locks.lock("key").ttl(TTL).keep_alive().acquire().await.unwrap();
    guard.lost_token().cancelled().await;

    let runtime = std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap()).join().unwrap();
    let request = locks.lock("other").ttl(TTL);
    let guard = runtime.spawn(request.acquire()).await.unwrap().unwrap();
    let token = guard.lost_token();
    runtime.shutdown_background();
    token.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn h6_after_a_pause_the_work_takes_no_step_before_the_loss_is_noticed() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let steps = AtomicU32::new(0);
    let request = locks.lock("key").ttl(TTL).keep_alive();
    let outcome = request.run(async |_| -> Result<()> {
        steps.fetch_add(1, Ordering::SeqCst);
        sleep(10 * MS).await;
        // The process pauses here. When it resumes, the work could go on, but the lease has ended.
        steps.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let mut outcome = std::pin::pin!(outcome);
    assert!(timeout(MS, outcome.as_mut()).await.is_err());
    tokio::time::advance(TTL).await;
    assert_eq!(outcome.await.unwrap_err().code(), ErrorCode::Lost);
    assert_eq!(steps.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_waits_for_the_undo_of_a_waiter() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, LOSE_REPLY);
    let waiting = Handle::current().spawn(locks.lock("key").ttl(60 * TTL).acquire());
    sleep(10 * MS).await;
    assert!(locks.is_locked("key").await.unwrap());
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
}

#[tokio::test(start_paused = true)]
async fn h2_a_background_release_survives_a_server_that_is_down() {
    let backend = plain();
    let locks = LockManager::builder(backend.clone()).shutdown_limit(1_000 * TTL).build();
    drop(locks.lock("key").ttl(1_000 * TTL).acquire().await.unwrap());
    backend.next_n(Operation::Release, 12, Fault::Fail(ErrorCode::ServiceUnavailable));
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_adoption_that_gets_no_answer_does_not_end_the_lease() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let lease = locks.lock("key").ttl(60 * TTL).acquire().await.unwrap().detach();
    let adopt = || locks.lock("key").ttl(60 * TTL).wait(100 * MS);

    backend.next(Operation::Extend, Fault::LandLate(300 * MS));
    assert_eq!(adopt().adopt(&lease).await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    backend.next(Operation::Extend, Fault::DelayRequest(300 * MS));
    assert_eq!(adopt().adopt(&lease).await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    let guard = adopt().adopt(&lease).await.unwrap().unwrap();
    sleep(TTL).await;
    assert!(locks.owns(guard.id()).await.unwrap());
    assert!(guard.release().await.unwrap());
}

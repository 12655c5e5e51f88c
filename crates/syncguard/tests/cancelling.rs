//! C: futures that are dropped at every await point.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use support::{LOSE_REPLY, next_all, plain};
use syncguard::{CancellationToken, Error, LockManager, Operation};
use syncguard_memory::Fault;
use tokio::time::timeout;

const MS: Duration = Duration::from_millis(1);

/// Polls a future up to `polls` times and drops it. Returns its output if it completed.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn c1_an_acquire_dropped_after_any_number_of_polls_leaves_no_lease() {
    for fault in [Fault::None, Fault::DelayRequest(50 * MS), LOSE_REPLY] {
        for polls in 0..100 {
            let backend = plain();
            let locks = LockManager::new(backend.clone());
            next_all(&backend, Operation::Acquire, [fault, Fault::DelayRequest(30 * MS)]);
            let done = poll_and_drop(locks.lock("key").acquire(), polls).await;
            let finished = done.is_some();
            drop(done);
            locks.shutdown().await.unwrap();
            assert!(!locks.is_locked("key").await.unwrap(), "{fault:?}, {polls} polls");
            if finished {
                break;
            }
            assert!(polls < 99, "expected the acquire to end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn o3_an_attempt_that_was_not_sent_does_not_count() {
    let backend = plain();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let locks = LockManager::builder(backend.clone())
        .observer(move |event| notes.lock().unwrap().push((event.operation(), event.attempts())))
        .build();
    let token = CancellationToken::new();
    token.cancel();
    assert!(locks.lock("key").cancel(token).acquire().await.is_err());
    assert!((backend.count(Operation::Acquire) == 0));
    assert_eq!(*seen.lock().unwrap(), [(Operation::Wait, Some(0))]);
}

#[tokio::test(start_paused = true)]
async fn c2_a_dropped_release_is_finished_in_the_background() {
    for polls in 0..10 {
        let backend = plain();
        let locks = LockManager::new(backend.clone());
        let guard = locks.lock("key").acquire().await.unwrap();
        backend.next(Operation::Release, Fault::DelayRequest(50 * MS));
        let done = poll_and_drop(guard.release(), polls).await;
        locks.shutdown().await.unwrap();
        assert!(!locks.is_locked("key").await.unwrap(), "{polls} polls");
        if done.is_some() {
            return;
        }
    }
    panic!("expected the release to end");
}

#[tokio::test(start_paused = true)]
async fn c2_a_dropped_extend_leaves_the_guard_usable() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").acquire().await.unwrap();
    backend.next(Operation::Extend, Fault::Hang);
    assert!(timeout(MS, guard.extend(Duration::from_secs(60))).await.is_err());
    guard.extend(Duration::from_secs(90)).await.unwrap();
    assert!(guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn h6_run_releases_when_dropped_and_when_the_work_panics() {
    let locks = LockManager::new(plain());
    let work = locks.lock("key").run(async |_| std::future::pending::<Result<(), Error>>().await);
    assert!(timeout(MS, work).await.is_err());
    let panicking =
        locks.lock("other").run(async |_| -> Result<(), Error> { panic!("the work fails") });
    let handle = tokio::runtime::Handle::current();
    assert!(handle.spawn(panicking).await.unwrap_err().is_panic());
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert!(!locks.is_locked("other").await.unwrap());
}

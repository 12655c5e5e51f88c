//! W6 to W8 and W10: the queue of waiters for a key in one process, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use support::waiters::{
    HOUR, MS, assert_no_queue_remains, cancellable, served_in_order, waiter, waiters,
    with_long_backoff,
};
use support::{LOSE_REPLY, millis, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{Backend, Backoff, CancellationToken, ErrorCode, Jitter, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn w6_first_come_first_served() {
    for backend in [plain(), with_handoff(), with_notifications_and_handoff()] {
        let locks = LockManager::new(backend);
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let queue = waiters(&locks, 40).await;
        assert_eq!(locks.waiters(), 40);
        let start = Instant::now();
        held.release().await.unwrap();
        let fences = served_in_order(queue).await;
        assert!(millis(start, Instant::now()) < 5, "expected no waiter to wait for a timer");
        assert_eq!(fences, Vec::from_iter(2..=41));
        assert_eq!(locks.waiters(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn w6_only_the_first_waiter_sends_attempts() {
    let asked_by = async |backend: FaultyBackend, how_many| {
        let other = LockManager::new(backend.clone());
        let _held = other.lock("key").ttl(HOUR).acquire().await.unwrap();
        let locks = LockManager::new(backend.clone());
        let queue = waiters(&locks, how_many).await;
        sleep(60_000 * MS).await;
        assert_eq!(
            backend.registrations(),
            usize::from(backend.capabilities().receives_notifications())
        );
        queue.iter().for_each(JoinHandle::abort);
        sleep(MS).await;
        assert_eq!(backend.registrations(), 0);
        backend.count(Operation::Acquire)
    };
    for backend in [plain, with_notifications_and_handoff] {
        let (one, many) = (asked_by(backend(), 1).await, asked_by(backend(), 1_000).await);
        assert!(many.abs_diff(one) <= 2, "{many} attempts of a thousand, {one} of one");
    }
}

#[tokio::test(start_paused = true)]
async fn w3_no_tight_loop_behind_an_expired_guard_of_the_same_manager() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    // No caller checks whether it is lost, so only its deadline shows that it has ended.
    let _overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    // Each attempt takes time, because a paused clock would not move in a tight loop.
    backend.next_n(Operation::Acquire, 5_000, Fault::DelayReply(MS));
    let guard = locks.lock("key").acquire().await.unwrap();
    assert_eq!(guard.fence().get(), 2);
    let attempts = backend.count(Operation::Acquire);
    assert!(attempts < 20, "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn w3_no_tight_loop_if_another_process_took_the_key() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.next_n(Operation::Acquire, 5_000, Fault::DelayReply(MS));
    let error = locks.lock("key").acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    let attempts = backend.count(Operation::Acquire);
    assert!(attempts < 20, "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn w3_no_attempt_at_an_expiry_that_was_extended() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(300 * MS).keep_alive().acquire().await.unwrap();
    let waiter = with_long_backoff(&locks, &CancellationToken::new());
    sleep(20_000 * MS).await;
    // The backoff is 5 to 10 s, and the lease was renewed 200 times.
    let attempts = backend.count(Operation::Acquire) - 1;
    assert!(attempts <= 4, "{attempts}");
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn w6_a_late_release_does_not_hide_the_current_holder() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = with_long_backoff(&locks, &CancellationToken::new());
    sleep(10 * MS).await;
    let asked = backend.count(Operation::Acquire);
    assert!(!overslept.release().await.unwrap());
    sleep(10 * MS).await;
    assert_eq!(
        backend.count(Operation::Acquire),
        asked,
        "expected no attempt behind a guard of this manager"
    );
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(backend.count(Operation::Handoff), 1);
}

#[test]
fn w6_a_woken_waker_may_use_the_manager() {
    struct ReadsTheManager(LockManager);
    impl std::task::Wake for ReadsTheManager {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.waiters(), 0, "expected the waiter to be served");
        }
    }
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let locks = LockManager::new(with_handoff());
            let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
            let waker = Arc::new(ReadsTheManager(locks.clone())).into();
            let mut waits = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
            assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            held.release().await.unwrap();
            done.send(()).unwrap();
        });
    });
    // A deadlock would block for ever.
    ended.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn w7_a_waiter_that_leaves_delays_no_other() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let (first, third) = (CancellationToken::new(), CancellationToken::new());
    let leaves = cancellable(&locks, &first).await;
    let second = waiter(&locks).await;
    let leaves_too = cancellable(&locks, &third).await;
    let dropped = waiter(&locks).await;
    let last = waiter(&locks).await;
    first.cancel();
    third.cancel();
    dropped.abort();
    for gone in [leaves, leaves_too] {
        assert_eq!(gone.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    }
    assert!(dropped.await.unwrap_err().is_cancelled());
    held.release().await.unwrap();
    assert_eq!(served_in_order(vec![second, last]).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn w7_a_waiter_that_leaves_during_an_attempt_leaves_no_lease() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::DelayRequest(700 * MS));
    let first = CancellationToken::new();
    let leaves = cancellable(&locks, &first).await;
    sleep(MS).await;
    first.cancel();
    assert_eq!(leaves.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);

    // The next caller finds the key free. It keeps the key although the delayed attempt arrives.
    let guard = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 1).await;
    sleep(800 * MS).await;
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    assert_eq!(served_in_order(queue).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn w7_a_panic_of_the_first_waiter_does_not_delay_the_next() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::Panic);
    let first = Handle::current().spawn(locks.lock("key").acquire());
    let queue = Handle::current().spawn(locks.lock("key").acquire());
    assert!(first.await.unwrap_err().is_panic());
    let queue = vec![queue];
    served_in_order(queue).await;
}

#[tokio::test(start_paused = true)]
async fn w7_shutdown_ends_all_waiters() {
    let locks = LockManager::new(with_handoff());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 5).await;
    locks.shutdown().await.unwrap();
    for waiter in queue {
        assert_eq!(waiter.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    }
    assert_eq!(locks.waiters(), 0);
    assert!(held.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w7_the_undo_of_an_attempt_wakes_the_next_waiter() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, LOSE_REPLY);
    backend.next(Operation::Release, Fault::DelayRequest(5 * MS));
    assert!(locks.lock("key").ttl(HOUR).max_retries(0).acquire().await.is_err());
    // It finds the key held by the grant of the lost reply.
    let start = Instant::now();
    let next = with_long_backoff(&locks, &CancellationToken::new());
    next.await.unwrap().unwrap().release().await.unwrap();
    let took = millis(start, Instant::now());
    assert!(took < 100, "expected the undo to wake the waiter, but it took {took} ms");
}

#[tokio::test(start_paused = true)]
async fn w8_the_limit_counts_from_the_call() {
    for becomes_first in [false, true] {
        let locks = LockManager::new(plain());
        let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let queue = waiters(&locks, 3).await;
        let start = Instant::now();
        let (outcome, ()) = tokio::join!(locks.lock("key").wait(300 * MS).acquire(), async {
            sleep(150 * MS).await;
            if becomes_first {
                queue.iter().for_each(JoinHandle::abort);
            }
        });
        assert_eq!(outcome.unwrap_err().code(), ErrorCode::AcquisitionTimeout);
        assert_eq!(millis(start, Instant::now()), 300, "becomes first: {becomes_first}");
    }
}

#[tokio::test(start_paused = true)]
async fn w8_a_waiter_behind_gets_the_failure_of_the_first() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next_n(Operation::Acquire, 99, Fault::Fail(ErrorCode::ServiceUnavailable));
    let _line = waiters(&locks, 1).await;
    let error = locks.lock("key").wait(300 * MS).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn w8_an_attempt_after_a_release_is_no_retry() {
    // Before the waiter's own first retry, and after it.
    for released_after in [2_000 * MS, 6_000 * MS] {
        let backend = plain();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let start = Instant::now();
        let request = locks.lock("key").wait(HOUR).max_retries(1);
        let every_five_seconds = Backoff::fixed(5_000 * MS).with_jitter(Jitter::None);
        let waiter = Handle::current().spawn(request.backoff(every_five_seconds).acquire());
        sleep(released_after).await;
        held.release().await.unwrap();
        // It is faster than the waiter, which was not even polled.
        let others = LockManager::new(backend.clone());
        let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
        let gave_up = millis(start, Instant::now());
        assert!((10_000..10_020).contains(&gave_up), "after {gave_up} ms");
        // Two of the attempts are those of the holders.
        assert_eq!(backend.count(Operation::Acquire), 2 + 3, "{released_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn w10_a_manager_counts_the_waiters_of_all_keys() {
    let locks = LockManager::new(plain());
    let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let _other = locks.lock("other").ttl(HOUR).acquire().await.unwrap();
    assert_eq!(locks.waiters(), 0, "expected no waiter: a holder does not wait");
    let queue = waiters(&locks, 3).await;
    let other = Handle::current().spawn(locks.lock("other").wait(HOUR).acquire());
    sleep(MS).await;
    assert_eq!(locks.waiters(), 4);
    queue.iter().chain([&other]).for_each(JoinHandle::abort);
    sleep(MS).await;
    assert_eq!(locks.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_ends_with_its_last_waiter_and_lease() {
    let locks = LockManager::new(with_handoff());
    locks.lock("one").acquire().await.unwrap().release().await.unwrap();
    locks.lock("two").acquire().await.unwrap().detach();
    assert!(locks.lock("two").max_retries(0).acquire().await.is_err());
    drop(locks.lock("three").acquire().await.unwrap());
    locks.lock("four").acquire().await.unwrap().detach();
    locks.shutdown().await.unwrap();
    assert_no_queue_remains(&locks);
}

#[tokio::test(start_paused = true)]
async fn a_queue_ends_with_a_lease_that_was_lost() {
    let locks = LockManager::new(with_handoff());
    let guard = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    guard.lost().await;
    guard.detach();
    assert_no_queue_remains(&locks);
}

#[tokio::test(start_paused = true)]
async fn a_queue_ends_although_the_release_fails() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    guard.lost().await;
    backend.next_n(Operation::Release, 9, Fault::Fail(ErrorCode::ServiceUnavailable));
    drop(guard);
    locks.shutdown().await.unwrap();
    assert_no_queue_remains(&locks);
}

//! G5 to G7: a release that serves the first waiter, and what can happen in the meantime.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::pin::pin;
use std::task::Poll;

use support::waiters::{
    HOUR, MS, Waiter, assert_no_queue_remains, cancellable, poll_once,
    receiver_of_a_dropped_release, served_in_order, waiter, waiters,
};
use support::{LOSE_REPLY, with_handoff};
use syncguard::{
    Backend, Backoff, CancellationToken, ErrorCode, LockGuard, LockManager, Operation,
};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn g5_a_release_serves_the_first_waiter_with_one_request() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 3).await;
    assert!(held.release().await.unwrap());
    served_in_order(queue).await;
    let calls = |operation| backend.count(operation);
    assert_eq!(calls(Operation::Acquire), 1);
    assert_eq!(calls(Operation::Handoff), 3);
    assert_eq!(calls(Operation::Release), 1, "expected one release, by the last waiter");
}

#[tokio::test(start_paused = true)]
async fn g5_the_lease_of_a_receiver_is_kept_alive() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(300 * MS).wait(HOUR).keep_alive();
    let receiver = Handle::current().spawn(request.acquire());
    sleep(MS).await;
    held.release().await.unwrap();
    let guard = receiver.await.unwrap().unwrap();
    sleep(5_000 * MS).await;
    assert!(!guard.is_lost());
    assert!(guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g6_a_handoff_without_an_answer_leaves_no_waiter_stuck() {
    for fault in [LOSE_REPLY, Fault::Fail(ErrorCode::NetworkTimeout), Fault::LandLate(MS)] {
        let backend = with_handoff();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let waiter = waiter(&locks).await;
        backend.next(Operation::Handoff, fault);
        assert_eq!(held.release().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
        let guard = waiter.await.unwrap().unwrap();
        assert_eq!(guard.fence().get(), 2, "{fault:?}");
        // The undo of an unanswered handoff must not run, because the waiter has found the lease.
        sleep(60_000 * MS).await;
        assert!(locks.owns(guard.id()).await.unwrap(), "{fault:?}");
        assert!(guard.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn g6_a_handoff_that_cannot_be_granted_is_a_release() {
    // A server without memory for writes answers with the second code.
    for code in [ErrorCode::Internal, ErrorCode::RateLimited] {
        let backend = with_handoff();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let queue = waiters(&locks, 1).await;
        backend.next(Operation::Handoff, Fault::Fail(code));
        assert!(held.release().await.unwrap(), "{code:?}");
        assert_eq!(served_in_order(queue).await, [2], "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g6_nothing_is_handed_off_during_an_attempt_of_the_first_waiter() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(20 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, Fault::DelayRequest(700 * MS));
    sleep(50 * MS).await;
    held.release().await.unwrap();
    // After the release, the delayed attempt would be a grant without a caller.
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!((backend.count(Operation::Handoff) == 0));
    sleep(1_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g6_a_panic_in_a_handoff_leaves_the_waiter_first() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 1).await;
    backend.next(Operation::Handoff, Fault::Panic);
    assert!(Handle::current().spawn(held.release()).await.unwrap_err().is_panic());
    served_in_order(queue).await;
    sleep(60_000 * MS).await;
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_the_next_waiter_gets_the_lease_of_a_receiver_that_leaves() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let token = CancellationToken::new();
    let leaves = cancellable(&locks, &token).await;
    let queue = waiters(&locks, 1).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    let release = Handle::current().spawn(held.release());
    sleep(10 * MS).await;
    token.cancel();
    assert!(leaves.await.unwrap().is_err());
    assert!(release.await.unwrap().unwrap());
    assert_eq!(served_in_order(queue).await, [3]);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_the_only_receiver_releases_the_lease_when_it_leaves() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let leaves = waiter(&locks).await;
    // By now its own attempt has found the key held.
    sleep(150 * MS).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    let release = Handle::current().spawn(held.release());
    sleep(10 * MS).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    // These waiters start a new queue. They must not be mistaken for the one that left.
    let queue = waiters(&locks, 2).await;
    assert!(release.await.unwrap().unwrap());
    assert_eq!(served_in_order(queue).await, [3, 4]);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_a_release_that_is_dropped_during_its_handoff_goes_on() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 2).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    tokio::select! {
        biased;
        _ = held.release() => panic!("expected the release to wait for its handoff, but it ended"),
        () = sleep(10 * MS) => {}
    }
    served_in_order(queue).await;
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_the_lease_of_a_receiver_that_is_never_polled_ends_by_its_ttl() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut asleep = pin!(locks.lock("key").ttl(300 * MS).wait(HOUR).keep_alive().acquire());
    assert!(poll_once(asleep.as_mut()).is_pending());
    held.release().await.unwrap();
    assert!(locks.is_locked("key").await.unwrap());
    sleep(2_000 * MS).await;
    assert!(
        !locks.is_locked("key").await.unwrap(),
        "expected the lease to end by its TTL, but it was kept alive"
    );

    let Poll::Ready(guard) = poll_once(asleep.as_mut()) else {
        panic!("expected the waiter to be served");
    };
    assert!(guard.unwrap().is_lost());
}

#[tokio::test(start_paused = true)]
async fn g7_a_receiver_of_an_old_queue_removes_no_waiter_from_the_new_one() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let receiver = receiver_of_a_dropped_release(&backend, &locks).await;
    // The receiver has its guard but was not polled, and its queue has ended. These start another.
    let queue = waiters(&locks, 2).await;
    receiver.await.unwrap().release().await.unwrap();
    assert_eq!(served_in_order(queue).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn g7_a_receiver_that_leaves_after_its_ttl_removes_no_waiter_from_a_new_queue() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut receiver = Box::pin(locks.lock("key").ttl(300 * MS).wait(HOUR).acquire());
    assert!(poll_once(receiver.as_mut()).is_pending());
    held.release().await.unwrap();
    sleep(2_000 * MS).await;
    // This release ends its queue.
    locks.lock("key").ttl(HOUR).acquire().await.unwrap().release().await.unwrap();
    let others = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let queue = waiters(&locks, 2).await;
    drop(receiver);
    held.release().await.unwrap();
    assert_eq!(served_in_order(queue).await, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_waits_for_the_lease_of_a_receiver_that_leaves() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = waiter(&locks).await;
    // The shutdown has started when the waiter is polled, and its release takes some time.
    backend.next_n(Operation::Release, 3, Fault::DelayRequest(10 * MS));
    drop(held);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(waiter.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_waits_for_the_lease_of_a_receiver_that_is_not_polled() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut asleep = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(poll_once(asleep.as_mut()).is_pending());
    drop(held);
    // It fails at its limit, because the sleeping waiter may still wake up.
    assert_eq!(locks.shutdown().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    drop(asleep);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

/// A held lease, a waiter on one runtime, and another runtime for the release.
fn with_a_waiter_on_another_runtime(
    backend: &FaultyBackend,
) -> (LockManager, LockGuard, Waiter, [Runtime; 2]) {
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (ends, stays) = (runtime(), runtime());
    let locks = LockManager::new(backend.clone());
    let held = stays.block_on(locks.lock("key").ttl(HOUR).acquire()).unwrap();
    let receiver = ends.spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    ends.block_on(async { sleep(10 * MS).await });
    assert_eq!(locks.waiters(), 1);
    (locks, held, receiver, [ends, stays])
}

/// Drops a runtime on a thread of its own, because it cannot be dropped inside another one.
fn end(runtime: Runtime) {
    std::thread::spawn(move || drop(runtime)).join().unwrap();
}

async fn assert_free_soon(locks: &LockManager) {
    let next = locks.lock("key").wait(60_000 * MS).acquire().await;
    next.unwrap().release().await.unwrap();
}

#[test]
fn g7_a_receiver_whose_runtime_ends_passes_the_lease_on() {
    let backend = with_handoff();
    let (locks, held, receiver, [ends, stays]) = with_a_waiter_on_another_runtime(&backend);
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    stays.block_on(async {
        let release = Handle::current().spawn(held.release());
        sleep(10 * MS).await;
        end(ends);
        assert!(release.await.unwrap().unwrap());
        assert!(receiver.await.unwrap_err().is_cancelled());
        assert_free_soon(&locks).await;
    });
}

#[test]
fn g7_a_lease_delivered_to_a_runtime_that_ends_is_passed_on() {
    let (locks, held, receiver, [ends, stays]) = with_a_waiter_on_another_runtime(&with_handoff());
    stays.block_on(async {
        assert!(held.release().await.unwrap());
        end(ends);
        assert!(receiver.await.unwrap_err().is_cancelled());
        assert_free_soon(&locks).await;
    });
}

#[tokio::test(start_paused = true)]
async fn g2_a_waiter_tries_at_once_if_the_lease_was_gone_before_its_handoff() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = waiter(&locks).await;
    sleep(MS).await;
    // Not by this manager: an operator ended the lease.
    assert!(backend.inner().release_by_id(held.id()).await.unwrap());
    let start = Instant::now();
    assert!(!held.release().await.unwrap());
    drop(waiter.await.unwrap().unwrap());
    assert!(start.elapsed() < 5 * MS, "after {:?}", start.elapsed());
    locks.shutdown().await.unwrap();
    assert_no_queue_remains(&locks);
}

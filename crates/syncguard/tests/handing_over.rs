//! G5-G7: a release that serves the first in line, and all that can happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::pin::pin;
use std::task::Poll;

use support::line::{
    HOUR, MS, Waiter, cancellable, heir_of_a_dropped_release, poll_once, served_in_order, waiter,
    waiters,
};
use support::{LOSE_REPLY, with_handoff};
use syncguard::{Backoff, CancellationToken, ErrorCode, LockGuard, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn g5_a_release_serves_the_first_in_line_with_one_request() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 3).await;
    assert!(held.release().await.unwrap());
    served_in_order(line).await;
    let calls = |operation| backend.count(operation);
    assert_eq!(calls(Operation::Acquire), 1);
    assert_eq!(calls(Operation::Handoff), 3);
    assert_eq!(calls(Operation::Release), 1, "of the last one");
}

#[tokio::test(start_paused = true)]
async fn g5_an_heir_is_kept_alive_once_it_is_there() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(300 * MS).wait(HOUR).keep_alive();
    let heir = Handle::current().spawn(request.acquire());
    sleep(MS).await;
    held.release().await.unwrap();
    let guard = heir.await.unwrap().unwrap();
    sleep(5_000 * MS).await;
    assert!(!guard.is_lost());
    assert!(guard.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g6_a_handoff_without_an_answer_loses_nobody() {
    for fault in [LOSE_REPLY, Fault::Fail(ErrorCode::NetworkTimeout), Fault::LandLate(MS)] {
        let backend = with_handoff();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let waiter = waiter(&locks).await;
        backend.next(Operation::Handoff, fault);
        assert_eq!(held.release().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
        let guard = waiter.await.unwrap().unwrap();
        assert_eq!(guard.fence().get(), 2, "{fault:?}");
        // What undoes an unanswered handoff is not carried out where the lease was found.
        sleep(60_000 * MS).await;
        assert!(locks.owns(guard.id()).await.unwrap(), "{fault:?}");
        assert!(guard.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn g6_a_handoff_that_cannot_be_granted_is_a_release() {
    // The second one is that of a server without memory for writes.
    for code in [ErrorCode::Internal, ErrorCode::RateLimited] {
        let backend = with_handoff();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let line = waiters(&locks, 1).await;
        backend.next(Operation::Handoff, Fault::Fail(code));
        assert!(held.release().await.unwrap(), "{code:?}");
        assert_eq!(served_in_order(line).await, [2], "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g6_nothing_is_handed_off_while_the_first_in_line_asks() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(20 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, Fault::DelayRequest(700 * MS));
    sleep(50 * MS).await;
    held.release().await.unwrap();
    // It would be another grant, to nobody, if its lease had been released before.
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!((backend.count(Operation::Handoff) == 0));
    sleep(1_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g6_a_panic_in_a_handoff_leaves_the_heir_its_turn() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 1).await;
    backend.next(Operation::Handoff, Fault::Panic);
    assert!(Handle::current().spawn(held.release()).await.unwrap_err().is_panic());
    served_in_order(line).await;
    sleep(60_000 * MS).await;
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_an_heir_that_leaves_passes_the_lease_on() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let token = CancellationToken::new();
    let leaves = cancellable(&locks, &token).await;
    let line = waiters(&locks, 1).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    let release = Handle::current().spawn(held.release());
    sleep(10 * MS).await;
    token.cancel();
    assert!(leaves.await.unwrap().is_err());
    assert!(release.await.unwrap().unwrap());
    assert_eq!(served_in_order(line).await, [3]);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_an_heir_that_leaves_alone_releases_the_lease() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let leaves = waiter(&locks).await;
    // It has seen for itself by now that the key is held.
    sleep(150 * MS).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    let release = Handle::current().spawn(held.release());
    sleep(10 * MS).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    // Whoever comes now stands in a new line, and is not taken for the one that left.
    let line = waiters(&locks, 2).await;
    assert!(release.await.unwrap().unwrap());
    assert_eq!(served_in_order(line).await, [3, 4]);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_a_release_that_is_dropped_while_it_supports_handoff_goes_on() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 2).await;
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    tokio::select! {
        biased;
        _ = held.release() => panic!("it takes longer"),
        () = sleep(10 * MS) => {}
    }
    served_in_order(line).await;
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn g7_a_lease_that_nobody_picks_up_ends_by_its_ttl() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut asleep = pin!(locks.lock("key").ttl(300 * MS).wait(HOUR).keep_alive().acquire());
    assert!(poll_once(asleep.as_mut()).is_pending());
    held.release().await.unwrap();
    assert!(locks.is_locked("key").await.unwrap());
    sleep(2_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap(), "it was kept alive for nobody");

    let Poll::Ready(guard) = poll_once(asleep.as_mut()) else {
        panic!("it was served");
    };
    assert!(guard.unwrap().is_lost());
}

#[tokio::test(start_paused = true)]
async fn g7_an_heir_of_an_old_line_takes_nobody_out_of_the_new_one() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let heir = heir_of_a_dropped_release(&backend, &locks).await;
    // The heir has its guard but not picked it up, and the line has ended: here begins another.
    let line = waiters(&locks, 2).await;
    heir.await.unwrap().release().await.unwrap();
    assert_eq!(served_in_order(line).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn g7_an_heir_that_leaves_after_its_ttl_takes_nobody_out_of_a_new_line() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut heir = Box::pin(locks.lock("key").ttl(300 * MS).wait(HOUR).acquire());
    assert!(poll_once(heir.as_mut()).is_pending());
    held.release().await.unwrap();
    sleep(2_000 * MS).await;
    // With this release its line ends.
    locks.lock("key").ttl(HOUR).acquire().await.unwrap().release().await.unwrap();
    let others = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 2).await;
    drop(heir);
    held.release().await.unwrap();
    assert_eq!(served_in_order(line).await, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_waits_for_a_lease_that_was_handed_to_one_who_leaves() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = waiter(&locks).await;
    // The shutdown has begun by the time the waiter is polled, and its release takes a while.
    backend.next_n(Operation::Release, 3, Fault::DelayRequest(10 * MS));
    drop(held);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(waiter.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
}

#[tokio::test(start_paused = true)]
async fn h3_shutdown_waits_for_a_lease_that_nobody_picks_up() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut asleep = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(poll_once(asleep.as_mut()).is_pending());
    drop(held);
    // In vain, up to its limit: who is asleep may yet wake up.
    assert_eq!(locks.shutdown().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    drop(asleep);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

/// A lease that is to be handed to a waiter on a runtime, and the runtime of the release.
fn to_a_waiter_elsewhere(
    backend: &FaultyBackend,
) -> (LockManager, LockGuard, Waiter, [Runtime; 2]) {
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (ends, stays) = (runtime(), runtime());
    let locks = LockManager::new(backend.clone());
    let held = stays.block_on(locks.lock("key").ttl(HOUR).acquire()).unwrap();
    let heir = ends.spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    ends.block_on(async { sleep(10 * MS).await });
    assert_eq!(locks.waiters(), 1);
    (locks, held, heir, [ends, stays])
}

/// A runtime cannot be dropped inside another one.
fn end(runtime: Runtime) {
    std::thread::spawn(move || drop(runtime)).join().unwrap();
}

async fn assert_free_soon(locks: &LockManager) {
    let next = locks.lock("key").wait(60_000 * MS).acquire().await;
    next.unwrap().release().await.unwrap();
}

#[test]
fn g7_an_heir_whose_runtime_ends_meanwhile_passes_the_lease_on() {
    let backend = with_handoff();
    let (locks, held, heir, [ends, stays]) = to_a_waiter_elsewhere(&backend);
    backend.next(Operation::Handoff, Fault::DelayRequest(50 * MS));
    stays.block_on(async {
        let release = Handle::current().spawn(held.release());
        sleep(10 * MS).await;
        end(ends);
        assert!(release.await.unwrap().unwrap());
        assert!(heir.await.unwrap_err().is_cancelled());
        assert_free_soon(&locks).await;
    });
}

#[test]
fn g7_a_lease_that_was_delivered_to_a_runtime_that_ends_is_passed_on() {
    let (locks, held, heir, [ends, stays]) = to_a_waiter_elsewhere(&with_handoff());
    stays.block_on(async {
        assert!(held.release().await.unwrap());
        end(ends);
        assert!(heir.await.unwrap_err().is_cancelled());
        assert_free_soon(&locks).await;
    });
}

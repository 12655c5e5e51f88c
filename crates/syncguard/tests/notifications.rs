//! W9: how a release wakes the first waiter, on a paused clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::waiters::{HOUR, MS, Waiter, waiter, waiters, with_long_backoff};
use support::{millis, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{Backoff, CancellationToken, Jitter, LockGuard, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend, Notifications};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};

/// A lock of another manager, and two waiters with long backoffs. The token cancels the first.
async fn two_behind_another_manager(
    backend: &FaultyBackend,
) -> (LockGuard, CancellationToken, Waiter, Waiter) {
    let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let token = CancellationToken::new();
    let (first, second) =
        (with_long_backoff(&locks, &token), with_long_backoff(&locks, &CancellationToken::new()));
    sleep(10 * MS).await;
    (held, token, first, second)
}

#[tokio::test(start_paused = true)]
async fn w9_a_waiter_that_becomes_first_keeps_the_registration() {
    let backend = with_notifications_and_handoff();
    let (held, token, first, second) = two_behind_another_manager(&backend).await;
    let attempts = backend.count(Operation::Acquire);
    token.cancel();
    assert!(first.await.unwrap().is_err());
    sleep(10 * MS).await;
    assert_eq!(
        backend.count(Operation::Acquire),
        attempts,
        "expected no attempt: the second waiter knows what the first knew"
    );

    let start = Instant::now();
    held.release().await.unwrap();
    second.await.unwrap().unwrap().release().await.unwrap();
    assert!(millis(start, Instant::now()) < 5);
}

#[tokio::test(start_paused = true)]
async fn w9_a_notification_is_not_lost_with_the_waiter_that_received_it() {
    let backend = with_notifications_and_handoff();
    let (held, token, first, second) = two_behind_another_manager(&backend).await;
    backend.next(Operation::Acquire, Fault::Hang);
    held.release().await.unwrap();
    sleep(10 * MS).await;
    let start = Instant::now();
    token.cancel();
    assert!(first.await.unwrap().is_err());
    second.await.unwrap().unwrap().release().await.unwrap();
    assert!(millis(start, Instant::now()) < 5);
}

#[test]
fn w9_a_notification_survives_the_runtime_of_the_waiter_that_received_it() {
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (ends, stays) = (runtime(), runtime());
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(backend.clone());
    let locks = LockManager::new(backend);
    let held = stays.block_on(others.lock("key").ttl(HOUR).acquire()).unwrap();
    let join_the_queue = |runtime: &Runtime| {
        let _inside = runtime.enter();
        let waiter = with_long_backoff(&locks, &CancellationToken::new());
        runtime.block_on(async { sleep(10 * MS).await });
        waiter
    };
    let (_first, second) = (join_the_queue(&ends), join_the_queue(&stays));
    assert_eq!(locks.waiters(), 2);
    drop(ends);
    stays.block_on(async {
        sleep(10 * MS).await;
        let start = Instant::now();
        held.release().await.unwrap();
        second.await.unwrap().unwrap().release().await.unwrap();
        assert!(
            millis(start, Instant::now()) < 5,
            "expected the release to wake the waiter, but it waited for its timer"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn w9_a_notification_of_an_earlier_release_causes_no_attempt() {
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let waiter = with_long_backoff(&locks, &CancellationToken::new());
    sleep(10 * MS).await;
    held.release().await.unwrap();
    // This attempt bypasses the queue, before the notification has reached it.
    let guard = locks.lock("key").ttl(HOUR).try_acquire().await.unwrap().unwrap();
    let attempts = backend.count(Operation::Acquire);
    sleep(100 * MS).await;
    assert_eq!(
        backend.count(Operation::Acquire),
        attempts,
        "expected no attempt while the key is held"
    );

    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(backend.count(Operation::Handoff), 1);
    assert_eq!(backend.count(Operation::Acquire), attempts, "expected a handoff and no attempt");
}

#[tokio::test(start_paused = true)]
async fn w8_an_attempt_after_a_notification_is_no_retry() {
    let backend = with_notifications_and_handoff();
    let take = || LockManager::new(backend.clone()).lock("key").ttl(HOUR).try_acquire();
    let mut held = take().await.unwrap().unwrap();
    let locks = LockManager::new(backend.clone());
    let request = locks.lock("key").max_retries(1).wait(HOUR).backoff(Backoff::fixed(HOUR));
    let waiter = Handle::current().spawn(request.acquire());
    sleep(10 * MS).await;
    for _ in 0..5 {
        held.release().await.unwrap();
        // Before the notification has reached the waiter.
        held = take().await.unwrap().unwrap();
        let attempts = backend.count(Operation::Acquire);
        sleep(10 * MS).await;
        assert_eq!(
            backend.count(Operation::Acquire),
            attempts + 1,
            "expected one attempt per notification"
        );
    }
    let start = Instant::now();
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!(
        millis(start, Instant::now()) < 5,
        "expected the release to wake the waiter, but it waited for its timer"
    );
}

#[tokio::test(start_paused = true)]
async fn w9_a_lost_registration_is_replaced_at_the_next_attempt() {
    let backend = with_notifications_and_handoff();
    let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let every_10_s = Backoff::fixed(10_000 * MS).with_jitter(Jitter::None);
    let request = locks.lock("key").wait(HOUR).backoff(every_10_s);
    backend.set_notifications(Notifications::Lost);
    let waiter = Handle::current().spawn(request.acquire());
    sleep(9_000 * MS).await;
    backend.set_notifications(Notifications::Passed);
    let attempts = backend.count(Operation::Acquire);
    sleep(2_000 * MS).await;
    assert_eq!(
        backend.count(Operation::Acquire),
        attempts + 1,
        "expected one attempt, by the timer"
    );

    let start = Instant::now();
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!(
        millis(start, Instant::now()) < 5,
        "expected the release to wake the waiter, but it waited for its timer"
    );
}

#[tokio::test(start_paused = true)]
async fn w9_an_expired_guard_hides_no_notification() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    // No caller checks this guard any more, so its end stays unnoticed.
    let overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = with_long_backoff(&locks, &CancellationToken::new());
    sleep(100 * MS).await;
    let start = Instant::now();
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!(
        millis(start, Instant::now()) < 5,
        "expected the release to wake the waiter, but it waited for its timer"
    );
    drop(overslept);
}

#[tokio::test(start_paused = true)]
async fn w9_spurious_notifications_are_no_tight_loop_behind_an_own_guard() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.set_notifications(Notifications::Spurious);
    let waiter = waiter(&locks).await;
    // It registers after its first attempt, which the backoff delays.
    sleep(1_000 * MS).await;
    let asked = backend.registrations_so_far();
    assert!((500..=1_010).contains(&asked), "{asked} interests in a second");
    backend.set_notifications(Notifications::Passed);
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn w9_a_panic_of_a_notification_ends_one_wait_only() {
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let queue = waiters(&locks, 10).await;
    backend.set_notifications(Notifications::Panic);
    sleep(5 * MS).await;
    backend.set_notifications(Notifications::Passed);
    sleep(100 * MS).await;
    held.release().await.unwrap();
    let mut panicked = 0;
    for waiter in queue {
        match waiter.await {
            Ok(guard) => assert!(guard.unwrap().release().await.unwrap()),
            Err(error) => panicked += usize::from(error.is_panic()),
        }
    }
    assert_eq!(panicked, 1, "expected one of ten waits to panic");
}

#[tokio::test(start_paused = true)]
async fn w9_a_release_during_an_attempt_is_not_missed() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(600 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, Fault::DelayReply(300 * MS));
    sleep(601 * MS).await;
    let start = Instant::now();
    held.release().await.unwrap();
    let guard = waiter.await.unwrap().unwrap();
    assert!(
        millis(start, Instant::now()) <= 300,
        "expected the release to wake the waiter, but it waited for its timer"
    );
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn w9_a_loss_wakes_the_first_waiter() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(300 * MS).keep_alive().acquire().await.unwrap();
    let request = locks.lock("key").wait(HOUR).backoff(Backoff::fixed(10_000 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    sleep(MS).await;
    locks.release_by_id(held.id()).await.unwrap();
    let start = Instant::now();
    assert_eq!(waiter.await.unwrap().unwrap().fence().get(), 2);
    assert!(millis(start, Instant::now()) <= 110, "expected the loss after a third of the TTL");
}

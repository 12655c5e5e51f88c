//! G8: handoffs in a row are limited, so that other processes are served.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::waiters::{HOUR, MS, Waiter, receiver_of_a_dropped_release, waiter, waiters};
use support::{farther_by, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{Backoff, Jitter, LockGuard, LockManager, Result};
use syncguard_memory::{FaultyBackend, Notifications};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// A waiter that makes an attempt every 20 ms, because it receives no notifications.
fn polls_often(locks: &LockManager) -> impl Future<Output = Result<LockGuard>> + Send + 'static {
    let every_20_ms = Backoff::fixed(20 * MS).with_jitter(Jitter::None);
    locks.lock("key").ttl(HOUR).wait(HOUR).backoff(every_20_ms).acquire()
}

/// Releases the guard, and lets each waiter hold the key for 30 ms: 34 of them take a second.
async fn assert_other_process_is_served(guard: LockGuard, other: Waiter, queue: Vec<Waiter>) {
    // A shift, so that no attempt meets the moment of a release.
    sleep(7 * MS).await;
    guard.release().await.unwrap();
    let busy = Handle::current().spawn(async move {
        for waiter in queue {
            let guard = waiter.await.unwrap().unwrap();
            sleep(30 * MS).await;
            guard.release().await.unwrap();
        }
    });
    let guard = other.await.unwrap().unwrap();
    assert!(guard.fence().get() < 50, "expected a fence below 50, but got {}", guard.fence());
    guard.release().await.unwrap();
    busy.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g8_other_processes_are_served_after_sixteen_grants() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |who: &'static str, waiter: Waiter| {
        let order = order.clone();
        Handle::current().spawn(async move {
            let guard = waiter.await.unwrap().unwrap();
            order.lock().unwrap().push((guard.fence().get(), who));
            guard.release().await.unwrap();
        })
    };
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut all = Vec::new();
    // The other process is registered for notifications, because its first attempt found the key
    // held.
    all.push(note("other", waiter(&others).await));
    sleep(50 * MS).await;
    for waiter in waiters(&locks, 40).await {
        all.push(note("own", waiter));
    }
    held.release().await.unwrap();
    for one in all {
        one.await.unwrap();
    }
    let mut order = order.lock().unwrap().clone();
    order.sort_unstable();
    let position = order.iter().position(|(_, who)| *who == "other");
    assert!(
        position.is_some_and(|position| (14..=32).contains(&position)),
        "expected position 14 to 32, but got {position:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn g8_other_processes_are_served_after_a_second_without_notifications() {
    for backend in [plain(), with_handoff()] {
        let (locks, others) =
            (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let other = Handle::current().spawn(polls_often(&others));
        let queue = waiters(&locks, 400).await;
        assert_other_process_is_served(held, other, queue).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g8_the_limit_also_holds_if_the_first_grant_is_a_handoff() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let receiver = receiver_of_a_dropped_release(&backend, &locks).await;
    // The queue has ended, and with it the count of grants. The new queue starts with a handoff.
    let guard = receiver.await.unwrap();
    let others = LockManager::new(backend.clone());
    let other = Handle::current().spawn(polls_often(&others));
    let queue = waiters(&locks, 400).await;
    assert_other_process_is_served(guard, other, queue).await;
}

/// How long another process waits beside a queue that is busy for 20 s with work of 5 ms each. The
/// requests of that process take a millisecond longer.
async fn wait_beside_a_busy_queue(listens: bool) -> Duration {
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(farther_by(&backend, MS));
    let locks = LockManager::new(backend.clone());
    let mut queue = Vec::new();
    let first = if listens {
        // Another manager holds the key when the queue starts.
        let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
        let first = waiter(&locks).await;
        queue = waiters(&locks, 4_000).await;
        sleep(20 * MS).await;
        held.release().await.unwrap();
        first.await.unwrap().unwrap()
    } else {
        locks.lock("key").ttl(HOUR).acquire().await.unwrap()
    };
    let start = Instant::now();
    let request = others.lock("key").ttl(HOUR).wait(HOUR);
    let other = Handle::current().spawn(async move {
        request.acquire().await.unwrap().release().await.unwrap();
        start.elapsed()
    });
    if !listens {
        queue = waiters(&locks, 4_000).await;
    }
    let busy = Handle::current().spawn(async move {
        sleep(5 * MS).await;
        first.release().await.unwrap();
        for waiter in queue {
            let guard = waiter.await.unwrap().unwrap();
            sleep(5 * MS).await;
            guard.release().await.unwrap();
        }
    });
    let waited = other.await.unwrap();
    busy.abort();
    waited
}

#[tokio::test(start_paused = true)]
async fn g8_a_process_that_is_farther_away_is_served() {
    for listens in [false, true] {
        let waited = wait_beside_a_busy_queue(listens).await;
        assert!(waited < 1_000 * MS, "after {waited:?}, if the queue is notified: {listens}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_process_that_is_farther_away_gets_a_share() {
    for (near, far) in [(MS, MS), (MS, 2 * MS), (2 * MS, 3 * MS)] {
        let store = with_notifications_and_handoff();
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        for (distance, count) in [near, far].into_iter().zip(&counts) {
            let locks = LockManager::new(farther_by(&store, distance));
            for _ in 0..8 {
                let (locks, count) = (locks.clone(), count.clone());
                drop(Handle::current().spawn(async move {
                    loop {
                        let guard = locks.lock("key").ttl(HOUR).wait(HOUR).acquire().await.unwrap();
                        count.fetch_add(1, Ordering::Relaxed);
                        sleep(3 * MS).await;
                        guard.release().await.unwrap();
                    }
                }));
            }
        }
        sleep(30_000 * MS).await;
        let [near_count, far_count] = counts.map(|count| count.load(Ordering::Relaxed));
        // A quarter of the mean.
        assert!(far_count * 7 >= near_count, "{near_count} and {far_count}, {near:?} and {far:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_process_without_notifications_is_served_beside_one_with_them() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let first = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.set_notifications(Notifications::Lost);
    let start = Instant::now();
    let other = Handle::current().spawn(polls_often(&others));
    sleep(7 * MS).await;
    backend.set_notifications(Notifications::Passed);
    let queue = waiters(&locks, 1_000).await;
    let busy = Handle::current().spawn(async move {
        first.release().await.unwrap();
        for waiter in queue {
            let guard = waiter.await.unwrap().unwrap();
            sleep(30 * MS).await;
            guard.release().await.unwrap();
        }
    });
    other.await.unwrap().unwrap().release().await.unwrap();
    let waited = start.elapsed();
    busy.abort();
    assert!(waited < 6_000 * MS, "after {waited:?}");
}

/// The grants in two minutes of eight tasks of one process, and of eight clients that only poll, with 0
/// to 3 ms of work each.
async fn grants_beside_pollers(locks: LockManager, backend: &FaultyBackend) -> [usize; 2] {
    // Fixes the pauses between polls. With random ones, pollers got less than a tenth in one minute of a
    // hundred.
    fastrand::seed(7);
    let polls = backend.clone().without_notifications().without_handoff();
    let poller = || LockManager::new(farther_by(&polls, MS));
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..16 {
        let polls = number % 2;
        let locks = if polls == 1 { poller() } else { locks.clone() };
        let (count, mut random) = (counts[polls].clone(), random.fork());
        drop(Handle::current().spawn(async move {
            loop {
                let guard = locks.lock("key").ttl(HOUR).wait(HOUR).acquire().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_micros(random.u64(..3_000))).await;
                guard.release().await.unwrap();
            }
        }));
    }
    sleep(120_000 * MS).await;
    counts.map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn w11_clients_that_only_poll_get_a_tenth_if_they_are_served() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::builder(farther_by(&backend, MS)).serve_pollers().build();
    let [ours, theirs] = grants_beside_pollers(locks, &backend).await;
    assert!(theirs * 9 >= ours, "{ours} grants here, {theirs} by polling");
    // The price, with the time that the others use: about a third, more or less by chance.
    let alone = LockManager::new(farther_by(&with_notifications_and_handoff(), MS));
    let [most, _] = grants_beside_pollers(alone, &with_notifications_and_handoff()).await;
    assert!(ours * 2 >= most, "{ours} grants here, {most} with the key to themselves");
}

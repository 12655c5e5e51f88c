//! G8: handoffs in a row are limited, so that other processes get their turn.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::line::{HOUR, MS, Waiter, heir_of_a_dropped_release, waiter, waiters};
use support::{farther_by, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{Backoff, Jitter, LockGuard, LockManager, Result};
use syncguard_memory::Notifications;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// One that asks every 20 ms, since nobody tells it of a release.
fn looks_often(locks: &LockManager) -> impl Future<Output = Result<LockGuard>> + Send + 'static {
    let every_20_ms = Backoff::fixed(20 * MS).with_jitter(Jitter::None);
    locks.lock("key").ttl(HOUR).wait(HOUR).backoff(every_20_ms).acquire()
}

/// Releases the guard, and lets its line hold the key for 30 ms each: a second is over after 34.
async fn assert_others_get_their_chance(guard: LockGuard, other: Waiter, line: Vec<Waiter>) {
    // So that it never looks at the very moment of a release.
    sleep(7 * MS).await;
    guard.release().await.unwrap();
    let hog = Handle::current().spawn(async move {
        for waiter in line {
            let guard = waiter.await.unwrap().unwrap();
            sleep(30 * MS).await;
            guard.release().await.unwrap();
        }
    });
    let guard = other.await.unwrap().unwrap();
    assert!(guard.fence().get() < 50, "not at the first chance: {}", guard.fence());
    guard.release().await.unwrap();
    hog.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn g8_others_get_their_turn_after_sixteen_grants() {
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
    // The other line listens, since its first attempt found the key held.
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
    let turn = order.iter().position(|(_, who)| *who == "other");
    assert!(turn.is_some_and(|turn| (14..=32).contains(&turn)), "its turn was {turn:?}");
}

#[tokio::test(start_paused = true)]
async fn g8_others_get_a_chance_after_a_second_where_nobody_is_told() {
    for backend in [plain(), with_handoff()] {
        let (locks, others) =
            (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let other = Handle::current().spawn(looks_often(&others));
        let line = waiters(&locks, 400).await;
        assert_others_get_their_chance(held, other, line).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_streak_that_begins_with_a_handoff_ends_too() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let heir = heir_of_a_dropped_release(&backend, &locks).await;
    // The line has ended, and with it the streak: the next grant of the new one is a handoff.
    let guard = heir.await.unwrap();
    let others = LockManager::new(backend.clone());
    let other = Handle::current().spawn(looks_often(&others));
    let line = waiters(&locks, 400).await;
    assert_others_get_their_chance(guard, other, line).await;
}

/// For how long another process waits beside a line that is busy for 20 s, with work of 5 ms, and
/// whose way to the store is a millisecond shorter.
async fn waits_beside_a_busy_line(listens: bool) -> Duration {
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(farther_by(&backend, MS));
    let locks = LockManager::new(backend.clone());
    let mut line = Vec::new();
    let first = if listens {
        // Somebody else holds the key when the line begins.
        let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
        let first = waiter(&locks).await;
        line = waiters(&locks, 4_000).await;
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
        line = waiters(&locks, 4_000).await;
    }
    let busy = Handle::current().spawn(async move {
        sleep(5 * MS).await;
        first.release().await.unwrap();
        for waiter in line {
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
async fn g8_whoever_is_farther_away_gets_a_turn() {
    for listens in [false, true] {
        let waited = waits_beside_a_busy_line(listens).await;
        assert!(waited < 1_000 * MS, "after {waited:?}, where the line listens: {listens}");
    }
}

#[tokio::test(start_paused = true)]
async fn g8_whoever_is_farther_away_gets_a_share() {
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
async fn g8_others_who_are_not_told_get_a_chance_where_the_line_is() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let first = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.set_notifications(Notifications::Lost);
    let start = Instant::now();
    let other = Handle::current().spawn(looks_often(&others));
    sleep(7 * MS).await;
    backend.set_notifications(Notifications::Passed);
    let line = waiters(&locks, 1_000).await;
    let busy = Handle::current().spawn(async move {
        first.release().await.unwrap();
        for waiter in line {
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

//! G8: hand-overs in a row are limited, so that other processes get their turn.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::pin::pin;
use std::sync::{Arc, Mutex};

use support::Spoilt;
use support::line::{HOUR, MS, Waiter, drop_while_it_hands_over, poll_once, waiter, waiters};
use syncguard::{Backoff, Jitter, LockGuard, LockManager, Result};
use tokio::runtime::Handle;
use tokio::time::sleep;

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
    let backend = Spoilt::with_hints_and_hand_over();
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
    for backend in [Spoilt::new(), Spoilt::with_hand_over()] {
        let (locks, others) =
            (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let other = Handle::current().spawn(looks_often(&others));
        let line = waiters(&locks, 400).await;
        assert_others_get_their_chance(held, other, line).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g8_a_streak_that_begins_with_a_hand_over_ends_too() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut heir = pin!(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(poll_once(heir.as_mut()).is_pending());
    drop_while_it_hands_over(&backend, held).await;
    // The line has ended, and with it the streak: the next grant of the new one is a hand-over.
    let guard = heir.await.unwrap();
    let others = LockManager::new(backend.clone());
    let other = Handle::current().spawn(looks_often(&others));
    let line = waiters(&locks, 400).await;
    assert_others_get_their_chance(guard, other, line).await;
}

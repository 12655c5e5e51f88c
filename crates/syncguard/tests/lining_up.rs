//! The line of those who wait for one key in one process, on a clock that stands still.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use support::{Fault, Spoilt, millis};
use syncguard::{Backoff, CancellationToken, ErrorCode, Jitter, LockGuard, LockManager, Operation};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

type Waiter = JoinHandle<syncguard::Result<LockGuard>>;

/// One more waiter, at the end of the line.
async fn waiter(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let before = locks.waiters();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).cancel(token.clone());
    let waiter = Handle::current().spawn(request.acquire());
    while locks.waiters() == before {
        tokio::task::yield_now().await;
    }
    waiter
}

async fn waiters(locks: &LockManager, how_many: usize) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for _ in 0..how_many {
        waiters.push(waiter(locks, &CancellationToken::new()).await);
    }
    waiters
}

/// Waits for all, one after the other, and checks that each is served next.
async fn served_in_order(waiters: Vec<Waiter>) -> Vec<u64> {
    let mut fences = Vec::new();
    for waiter in waiters {
        let guard = waiter.await.unwrap().unwrap();
        fences.push(guard.fence().get());
        assert!(guard.release().await.unwrap());
    }
    fences
}

#[tokio::test(start_paused = true)]
async fn w6_first_come_first_served() {
    for backend in [Spoilt::new(), Spoilt::with_hand_over(), Spoilt::with_hints_and_hand_over()] {
        let locks = LockManager::new(backend);
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let line = waiters(&locks, 40).await;
        assert_eq!(locks.waiters(), 40);
        let start = Instant::now();
        held.release().await.unwrap();
        let fences = served_in_order(line).await;
        assert!(millis(start, Instant::now()) < 5, "nobody waits for a timer");
        assert_eq!(fences, Vec::from_iter(2..=41));
        assert_eq!(locks.waiters(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn w6_only_the_first_in_line_asks() {
    let asked_by = async |how_many| {
        let backend = Spoilt::new();
        let other = LockManager::new(backend.clone());
        let _held = other.lock("key").ttl(HOUR).acquire().await.unwrap();
        let locks = LockManager::new(backend.clone());
        let line = waiters(&locks, how_many).await;
        sleep(60_000 * MS).await;
        line.iter().for_each(JoinHandle::abort);
        backend.calls(Operation::Acquire).len()
    };
    let (one, many) = (asked_by(1).await, asked_by(1_000).await);
    assert!(many.abs_diff(one) <= 2, "{many} attempts of a thousand, {one} of one");
}

#[tokio::test(start_paused = true)]
async fn w6_whoever_leaves_holds_up_nobody() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let (first, third) = (CancellationToken::new(), CancellationToken::new());
    let leaves = waiter(&locks, &first).await;
    let second = waiter(&locks, &CancellationToken::new()).await;
    let leaves_too = waiter(&locks, &third).await;
    let dropped = waiter(&locks, &CancellationToken::new()).await;
    let last = waiter(&locks, &CancellationToken::new()).await;
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
async fn w6_whoever_leaves_in_the_middle_of_an_attempt_passes_on_what_it_brings() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, [Fault::Late(700 * MS)]);
    let first = CancellationToken::new();
    let leaves = waiter(&locks, &first).await;
    sleep(MS).await;
    first.cancel();
    assert_eq!(leaves.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);

    // The next one finds the key free, and keeps it although the other attempt comes through.
    let guard = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 1).await;
    sleep(800 * MS).await;
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    assert_eq!(served_in_order(line).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn w2_the_limit_counts_from_the_call() {
    let locks = LockManager::new(Spoilt::new());
    let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let _line = waiters(&locks, 3).await;
    let start = Instant::now();
    let error = locks.lock("key").wait(300 * MS).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    assert_eq!(millis(start, Instant::now()), 300);
}

#[tokio::test(start_paused = true)]
async fn w4_those_behind_are_told_how_the_first_one_failed() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, [Fault::Refused(ErrorCode::ServiceUnavailable); 99]);
    let _line = waiters(&locks, 1).await;
    let error = locks.lock("key").wait(300 * MS).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn h8_a_release_serves_the_first_in_line_with_one_request() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 3).await;
    assert!(held.release().await.unwrap());
    served_in_order(line).await;
    let calls = |operation| backend.calls(operation).len();
    assert_eq!(calls(Operation::Acquire), 1);
    assert_eq!(calls(Operation::HandOver), 3);
    assert_eq!(calls(Operation::Release), 1, "of the last one");
}

#[tokio::test(start_paused = true)]
async fn h8_others_get_their_turn_after_sixteen_grants() {
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
    all.push(note("other", waiter(&others, &CancellationToken::new()).await));
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
async fn h8_others_get_a_chance_after_a_second_where_nobody_is_told() {
    for backend in [Spoilt::new(), Spoilt::with_hand_over()] {
        let (locks, others) =
            (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let request = others
            .lock("key")
            .ttl(HOUR)
            .wait(HOUR)
            .backoff(Backoff::fixed(20 * MS).with_jitter(Jitter::None));
        let other = Handle::current().spawn(request.acquire());
        let line = waiters(&locks, 400).await;
        // So that it never looks at the very moment of a release.
        sleep(7 * MS).await;
        held.release().await.unwrap();
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
}

/// One who waits long for its timer, so that something else must tell it.
fn patient(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(HOUR / 60));
    Handle::current().spawn(request.cancel(token.clone()).acquire())
}

#[tokio::test(start_paused = true)]
async fn w7_whoever_moves_up_goes_on_listening() {
    let backend = Spoilt::with_hints_and_hand_over();
    let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let token = CancellationToken::new();
    let (first, second) = (patient(&locks, &token), patient(&locks, &CancellationToken::new()));
    sleep(10 * MS).await;
    let attempts = backend.calls(Operation::Acquire).len();
    token.cancel();
    assert!(first.await.unwrap().is_err());
    sleep(10 * MS).await;
    assert_eq!(backend.calls(Operation::Acquire).len(), attempts, "it knows what the first knew");

    let start = Instant::now();
    held.release().await.unwrap();
    second.await.unwrap().unwrap().release().await.unwrap();
    assert!(millis(start, Instant::now()) < 5);
}

#[tokio::test(start_paused = true)]
async fn w7_a_hint_is_not_lost_with_whom_it_came_to() {
    let backend = Spoilt::with_hints_and_hand_over();
    let held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let token = CancellationToken::new();
    let (first, second) = (patient(&locks, &token), patient(&locks, &CancellationToken::new()));
    sleep(10 * MS).await;
    backend.next(Operation::Acquire, [Fault::Hangs]);
    held.release().await.unwrap();
    sleep(10 * MS).await;
    let start = Instant::now();
    token.cancel();
    assert!(first.await.unwrap().is_err());
    second.await.unwrap().unwrap().release().await.unwrap();
    assert!(millis(start, Instant::now()) < 5);
}

#[tokio::test(start_paused = true)]
async fn h8_a_hand_over_without_an_answer_loses_nobody() {
    for fault in [Fault::ReplyLost, Fault::Refused(ErrorCode::NetworkTimeout), Fault::LandsLate(MS)]
    {
        let backend = Spoilt::with_hand_over();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let waiter = waiter(&locks, &CancellationToken::new()).await;
        backend.next(Operation::HandOver, [fault]);
        assert_eq!(held.release().await.unwrap_err().code(), ErrorCode::NetworkTimeout);
        let guard = waiter.await.unwrap().unwrap();
        assert_eq!(guard.fence().get(), 2, "{fault:?}");
        // What undoes an unanswered hand-over is not carried out where the lease was found.
        sleep(60_000 * MS).await;
        assert!(locks.owns(guard.id()).await.unwrap(), "{fault:?}");
        assert!(guard.release().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn h8_a_hand_over_that_cannot_be_granted_is_a_release() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 1).await;
    backend.next(Operation::HandOver, [Fault::Refused(ErrorCode::Internal)]);
    assert!(held.release().await.unwrap());
    assert_eq!(served_in_order(line).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn h8_nothing_is_handed_over_while_the_first_in_line_asks() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(20 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, [Fault::Late(700 * MS)]);
    sleep(50 * MS).await;
    held.release().await.unwrap();
    // It would be another grant, to nobody, if its lease had been released before.
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!(backend.calls(Operation::HandOver).is_empty());
    sleep(1_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w_a_release_during_an_attempt_is_not_missed() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(600 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, [Fault::ReplyLate(300 * MS)]);
    sleep(601 * MS).await;
    let start = Instant::now();
    held.release().await.unwrap();
    let guard = waiter.await.unwrap().unwrap();
    assert!(millis(start, Instant::now()) <= 300, "it waited for its timer");
    drop(guard);
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_with_the_last_who_needs_it() {
    let locks = LockManager::new(Spoilt::with_hand_over());
    locks.lock("one").acquire().await.unwrap().release().await.unwrap();
    locks.lock("two").acquire().await.unwrap().detach();
    assert!(locks.lock("two").max_retries(0).acquire().await.is_err());
    drop(locks.lock("three").acquire().await.unwrap());
    locks.lock("four").acquire().await.unwrap().detach();
    locks.shutdown().await.unwrap();
    let shown = format!("{locks:?}");
    assert!(shown.contains("lines: Lines(Mutex { data: {},"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn h8_an_heir_that_leaves_passes_the_lease_on() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let token = CancellationToken::new();
    let leaves = waiter(&locks, &token).await;
    let line = waiters(&locks, 1).await;
    backend.next(Operation::HandOver, [Fault::Late(50 * MS)]);
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
async fn h8_an_heir_that_leaves_alone_releases_the_lease() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let leaves = waiter(&locks, &CancellationToken::new()).await;
    // It has seen for itself by now that the key is held.
    sleep(150 * MS).await;
    backend.next(Operation::HandOver, [Fault::Late(50 * MS)]);
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
async fn c2_a_release_that_is_dropped_while_it_hands_over_goes_on() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 2).await;
    backend.next(Operation::HandOver, [Fault::Late(50 * MS)]);
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
async fn h8_a_lease_that_nobody_picks_up_ends_by_its_ttl() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut asleep = pin!(locks.lock("key").ttl(300 * MS).wait(HOUR).keep_alive().acquire());
    assert!(asleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    held.release().await.unwrap();
    assert!(locks.is_locked("key").await.unwrap());
    sleep(2_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap(), "it was kept alive for nobody");

    let Poll::Ready(guard) = asleep.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it was served");
    };
    assert!(guard.unwrap().is_lost());
}

#[tokio::test(start_paused = true)]
async fn h8_an_heir_is_kept_alive_once_it_is_there() {
    let backend = Spoilt::with_hand_over();
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
async fn a_loss_is_told_to_the_first_in_line() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(300 * MS).keep_alive().acquire().await.unwrap();
    let request = locks.lock("key").wait(HOUR).backoff(Backoff::fixed(10_000 * MS));
    let waiter = Handle::current().spawn(request.acquire());
    sleep(MS).await;
    locks.release_by_id(held.id()).await.unwrap();
    let start = Instant::now();
    assert_eq!(waiter.await.unwrap().unwrap().fence().get(), 2);
    assert!(millis(start, Instant::now()) <= 110, "a third of the TTL");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_first_in_line_does_not_hold_up_the_next() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, [Fault::Panics]);
    let first = Handle::current().spawn(locks.lock("key").acquire());
    let line = Handle::current().spawn(locks.lock("key").acquire());
    assert!(first.await.unwrap_err().is_panic());
    let line = vec![line];
    served_in_order(line).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_hand_over_leaves_the_heir_its_turn() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 1).await;
    backend.next(Operation::HandOver, [Fault::Panics]);
    assert!(Handle::current().spawn(held.release()).await.unwrap_err().is_panic());
    served_in_order(line).await;
    sleep(60_000 * MS).await;
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_all_who_stand_in_line() {
    let locks = LockManager::new(Spoilt::with_hand_over());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 5).await;
    locks.shutdown().await.unwrap();
    for waiter in line {
        assert_eq!(waiter.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    }
    assert_eq!(locks.waiters(), 0);
    assert!(held.release().await.unwrap());
}

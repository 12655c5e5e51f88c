//! W6, W7, W8 and W10: those who wait for a key through one manager.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager, LockRequest};
use syncguard_core::{Backend, ErrorCode, Fence, Key, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::{Instant, sleep};

use crate::store::{
    LONG, MOST_POLLS, PAUSE, QUICK, SLOW, SOON, Store, attempts_by_id, code, fresh_key,
    poll_then_drop, race, until,
};
use crate::waiter::{Waiter, in_order};

cases![
    w6_first_come_first_served,
    w6_first_come_first_served_behind_a_guard,
    w6_only_the_first_asks,
    w6_two_lines_of_eight_get_their_turns,
    w7_who_is_cancelled_holds_nobody_up,
    w7_who_is_dropped_holds_nobody_up,
    w7_who_runs_out_of_time_holds_nobody_up,
    w7_who_is_dropped_after_any_poll_holds_nobody_up,
    w7_a_grant_whose_reply_comes_too_late_goes_to_the_next,
    w7_a_grant_that_comes_too_late_is_released,
    w7_shutdown_ends_all_who_stand_in_line,
    w8_the_limit_counts_from_the_call,
    w8_the_limit_counts_from_the_call_for_one_who_moves_up,
    w8_a_failure_in_front_is_returned_as_itself,
    w8_retries_count_ones_own_attempts,
    w10_waiters_are_counted,
];

const SHORT: Duration = Duration::from_millis(200);

fn patient(store: &Store, request: LockRequest) -> LockRequest {
    request.ttl(LONG).wait(LONG).backoff(store.backoff())
}

async fn w6_first_come_first_served(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(Waiter::for_turn(patient(&store, locks.lock(&key))).await);
    }
    assert!(store.two.release(&lease).await?);
    in_order(waiters).await?;
    assert!(!store.is_held(&key).await?);
    Ok(())
}

async fn w6_first_come_first_served_behind_a_guard(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(Waiter::for_turn(patient(&store, locks.lock(&key))).await);
    }
    assert!(guard.release().await?);
    in_order(waiters).await?;
    assert!(!store.is_held(&key).await?);
    Ok(())
}

async fn w6_only_the_first_asks(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let mut waiters = Vec::new();
    for _ in 0..8 {
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(QUICK);
        waiters.push(Waiter::for_turn(request).await);
    }
    until(async || Ok(faulty.count(Operation::Acquire) >= 5)).await?;
    assert_eq!(attempts_by_id(&faulty).len(), 1, "more than one asks");
    // One, or two for as long as the one replaces the other.
    let interests = faulty.registrations();
    assert!(interests <= 2, "{interests} interests of eight");
    assert!(store.two.release(&lease).await?);
    in_order(waiters).await?;
    until(async || Ok(faulty.registrations() == 0)).await
}

async fn w6_two_lines_of_eight_get_their_turns(store: Store) -> Result<()> {
    let key = fresh_key();
    let managers = [store.locks(), LockManager::new(store.two.clone())];
    let counter = Arc::new(AtomicUsize::new(0));
    let workers = race(16, |turn| {
        let (key, locks, counter) = (key.clone(), managers[turn % 2].clone(), counter.clone());
        async move {
            for _ in 0..2 {
                let work = async |_: &LockGuard| -> Result<()> {
                    // Read, pause, write: any other worker in between would be overwritten.
                    let seen = counter.load(Ordering::SeqCst);
                    sleep(PAUSE).await;
                    counter.store(seen + 1, Ordering::SeqCst);
                    Ok(())
                };
                let backoff = Backoff::fixed(Duration::from_millis(20));
                locks.lock(&key).ttl(LONG).wait(LONG).backoff(backoff).run(work).await?;
            }
            Ok(())
        }
    });
    workers.await.into_iter().collect::<Result<Vec<()>>>()?;
    assert_eq!(counter.load(Ordering::SeqCst), 32);
    assert!(!store.is_held(&key).await?);
    Ok(())
}

/// How somebody leaves the line.
#[derive(Clone, Copy)]
enum Leave {
    Cancelled,
    Dropped,
    OutOfTime,
}

async fn w7_who_is_cancelled_holds_nobody_up(store: Store) -> Result<()> {
    leaves_at_every_place(store, Leave::Cancelled).await
}

async fn w7_who_is_dropped_holds_nobody_up(store: Store) -> Result<()> {
    leaves_at_every_place(store, Leave::Dropped).await
}

async fn w7_who_runs_out_of_time_holds_nobody_up(store: Store) -> Result<()> {
    leaves_at_every_place(store, Leave::OutOfTime).await
}

async fn leaves_at_every_place(store: Store, leave: Leave) -> Result<()> {
    for place in 0..3 {
        let key = fresh_key();
        let lease = store.take(&key, LONG).await?;
        let (faulty, locks) = store.troubled(|_, _| Fault::None);
        let token = CancellationToken::new();
        let mut waiters = Vec::new();
        for number in 0..3 {
            let request = patient(&store, locks.lock(&key));
            let request = match leave {
                Leave::Cancelled if number == place => request.cancel(token.clone()),
                Leave::OutOfTime if number == place => request.wait(SHORT),
                _ => request,
            };
            waiters.push(Waiter::for_turn(request).await);
        }
        until(async || Ok(faulty.count(Operation::Acquire) >= 1)).await?;
        go(leave, waiters.remove(place), &token, ErrorCode::AcquisitionTimeout).await;
        assert_eq!(locks.waiters(), 2, "it still stands in line");
        let released = Instant::now();
        assert!(store.two.release(&lease).await?);
        in_order(waiters).await?;
        let waited = released.elapsed();
        assert!(waited < SOON, "held up for {waited:?}");
        locks.shutdown().await?;
        assert!(!store.is_held(&key).await?, "a lease remains");
    }
    Ok(())
}

/// `out_of_time` is the error of a waiter whose limit passed.
async fn go(
    leave: Leave,
    waiter: Waiter<Fence>,
    token: &CancellationToken,
    out_of_time: ErrorCode,
) {
    match leave {
        Leave::Cancelled => {
            token.cancel();
            assert_eq!(code(waiter.outcome().await), ErrorCode::Aborted);
        }
        Leave::Dropped => waiter.drop_out().await,
        Leave::OutOfTime => {
            assert_eq!(code(waiter.outcome().await), out_of_time);
        }
    }
}

/// The first, in the middle of an attempt that would be granted.
async fn w7_who_is_dropped_after_any_poll_holds_nobody_up(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let mut first = Box::pin(patient(&store, locks.lock(&key)).acquire());
        let stands = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
        let second = Waiter::for_turn(patient(&store, locks.lock(&key))).await;
        let guard = match stands {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => poll_then_drop(polls, first).await,
        };
        let done = guard.is_some();
        if let Some(guard) = guard {
            assert!(guard?.release().await?);
        }
        second.outcome().await?;
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "a lease remains");
        if done {
            return Ok(());
        }
    }
    panic!("no lock after {MOST_POLLS} polls");
}

const LEAVERS: [Leave; 3] = [Leave::Cancelled, Leave::Dropped, Leave::OutOfTime];

async fn w7_a_grant_whose_reply_comes_too_late_goes_to_the_next(store: Store) -> Result<()> {
    for leave in LEAVERS {
        let (faulty, locks, key, second) =
            leaves_in_its_attempt(&store, Fault::HoldReply, leave).await?;
        let opened = Instant::now();
        faulty.open();
        second.outcome().await?;
        let waited = opened.elapsed();
        assert!(waited < SOON, "held up for {waited:?}");
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "a lease remains");
    }
    Ok(())
}

async fn w7_a_grant_that_comes_too_late_is_released(store: Store) -> Result<()> {
    for leave in LEAVERS {
        let (faulty, locks, key, second) =
            leaves_in_its_attempt(&store, Fault::HoldRequest, leave).await?;
        // Nobody knows what will become of the first attempt, so the second does not wait for it.
        second.outcome().await?;
        faulty.open();
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "a lease remains");
    }
    Ok(())
}

/// Of two in line, the first leaves while its attempt is held up. The second goes on waiting.
async fn leaves_in_its_attempt(
    store: &Store,
    trouble: Fault,
    leave: Leave,
) -> Result<(FaultyBackend, LockManager, Key, Waiter<Fence>)> {
    let key = fresh_key();
    let (faulty, locks) = store.troubled(first_attempt(trouble));
    let token = CancellationToken::new();
    let request = patient(store, locks.lock(&key)).cancel(token.clone());
    let request = match leave {
        Leave::OutOfTime => request.wait(SHORT),
        Leave::Cancelled | Leave::Dropped => request,
    };
    let first = Waiter::for_turn(request).await;
    let second = Waiter::for_turn(patient(store, locks.lock(&key))).await;
    until(async || Ok(faulty.held() == 1)).await?;
    go(leave, first, &token, ErrorCode::NetworkTimeout).await;
    Ok((faulty, locks, key, second))
}

fn first_attempt(trouble: Fault) -> impl Fn(Operation, usize) -> Fault {
    move |operation, before| match (operation, before) {
        (Operation::Acquire, 0) => trouble,
        _ => Fault::None,
    }
}

async fn w7_shutdown_ends_all_who_stand_in_line(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(Waiter::for_guard(patient(&store, locks.lock(&key))).await);
    }
    locks.shutdown().await?;
    for waiter in waiters {
        assert_eq!(code(waiter.outcome().await), ErrorCode::Aborted);
    }
    assert_eq!(locks.waiters(), 0);
    assert!(store.one.release(&lease).await?, "it was the holder's");
    assert!(!store.is_held(&key).await?, "a lease remains");
    Ok(())
}

async fn w8_the_limit_counts_from_the_call(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let _first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    let asked = Instant::now();
    let outcome = locks.lock(&key).wait(SHORT).backoff(SLOW).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout);
    assert!(SHORT <= waited && waited < SOON, "after {waited:?}");
    assert_eq!(attempts_by_id(&faulty).len(), 1, "it was not its turn");
    Ok(())
}

/// The second, when half of its time is over.
async fn w8_the_limit_counts_from_the_call_for_one_who_moves_up(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let locks = store.locks();
    let first = Waiter::for_guard(patient(&store, locks.lock(&key))).await;
    let moves_up = async {
        sleep(SHORT / 2).await;
        first.drop_out().await;
        // The limit ends before that, and one that began with the move after it.
        sleep(SHORT * 3 / 4).await;
    };
    let second = locks.lock(&key).wait(SHORT).backoff(QUICK).acquire();
    tokio::select! {
        // However late they are looked at.
        biased;
        outcome = second => assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout),
        () = moves_up => panic!("the limit began anew"),
    }
    Ok(())
}

async fn w8_a_failure_in_front_is_returned_as_itself(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.troubled(|_, _| Fault::Fail(ErrorCode::RateLimited));
    let _first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    until(async || Ok(faulty.count(Operation::Acquire) >= 2)).await?;
    let asked = Instant::now();
    let outcome = locks.lock(&key).wait(SHORT).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::RateLimited);
    assert!(SHORT <= waited && waited < SOON, "after {waited:?}");
    assert_eq!(attempts_by_id(&faulty).len(), 1, "it was not its turn");
    Ok(())
}

async fn w8_retries_count_ones_own_attempts(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    // An attempt that a notification calls for is no retry.
    let faulty = store.faulty(|_, _| Fault::None).without_notifications();
    let locks = LockManager::new(faulty.clone());
    let first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    let request = locks.lock(&key).wait(LONG).max_retries(1).backoff(QUICK);
    let second = Waiter::for_guard(request).await;
    until(async || Ok(faulty.count(Operation::Acquire) >= 5)).await?;
    first.drop_out().await;
    assert_eq!(code(second.outcome().await), ErrorCode::AcquisitionTimeout);
    assert_eq!(attempts_by_id(&faulty).get(1), Some(&2), "not one attempt and one retry");
    Ok(())
}

async fn w10_waiters_are_counted(store: Store) -> Result<()> {
    let (keys, locks) = ([fresh_key(), fresh_key()], store.locks());
    assert_eq!(locks.waiters(), 0);
    let mut leases = Vec::new();
    for key in &keys {
        leases.push(store.take(key, LONG).await?);
    }
    let mut waiters = Vec::new();
    for (number, key) in [&keys[0], &keys[0], &keys[1]].into_iter().enumerate() {
        waiters.push(Waiter::for_turn(patient(&store, locks.lock(key))).await);
        assert_eq!(locks.waiters(), number + 1);
    }
    waiters.remove(1).drop_out().await;
    assert_eq!(locks.waiters(), 2);
    for lease in &leases {
        assert!(store.two.release(lease).await?);
    }
    for waiter in waiters {
        waiter.outcome().await?;
    }
    assert_eq!(locks.waiters(), 0);
    Ok(())
}

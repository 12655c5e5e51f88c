//! W6, W7, W8 and W10: the queue of waiters for a key in one manager.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager, LockRequest};
use syncguard_core::{Backend, ErrorCode, Fence, Key, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::{Instant, sleep};

use crate::expect::{assert_released, code};
use crate::store::{
    LONG, MOST_POLLS, PAUSE, QUICK, SLOW, SOON, Store, attempts_by_id, fresh_key, poll_then_drop,
    race, until,
};
use crate::waiter::{Waiter, in_order};

cases![
    w6_first_come_first_served,
    w6_first_come_first_served_behind_a_guard,
    w6_only_the_first_waiter_sends_attempts,
    w6_two_queues_of_eight_are_all_served,
    w7_a_cancelled_waiter_delays_no_other,
    w7_a_dropped_waiter_delays_no_other,
    w7_a_waiter_out_of_time_delays_no_other,
    w7_a_waiter_dropped_after_any_poll_delays_no_other,
    w7_a_grant_whose_reply_comes_too_late_goes_to_the_next_waiter,
    w7_a_grant_that_comes_too_late_is_released,
    w7_shutdown_ends_all_waiters,
    w8_the_limit_counts_from_the_call,
    w8_the_limit_counts_from_the_call_for_a_waiter_that_becomes_first,
    w8_a_failure_of_the_first_waiter_is_returned_as_it_is,
    w8_the_retry_limit_counts_own_attempts,
    w10_waiters_are_counted,
];

const SHORT: Duration = Duration::from_millis(200);

fn long_wait(store: &Store, request: LockRequest) -> LockRequest {
    request.ttl(LONG).wait(LONG).backoff(store.backoff())
}

async fn w6_first_come_first_served(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(Waiter::for_fence(long_wait(&store, locks.lock(&key))).await);
    }
    assert_released(store.two.release(&lease).await?);
    in_order(waiters).await?;
    store.assert_free(&key).await?;
    Ok(())
}

async fn w6_first_come_first_served_behind_a_guard(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(Waiter::for_fence(long_wait(&store, locks.lock(&key))).await);
    }
    assert_released(guard.release().await?);
    in_order(waiters).await?;
    store.assert_free(&key).await?;
    Ok(())
}

async fn w6_only_the_first_waiter_sends_attempts(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let mut waiters = Vec::new();
    for _ in 0..8 {
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(QUICK);
        waiters.push(Waiter::for_fence(request).await);
    }
    until(async || Ok(faulty.count(Operation::Acquire) >= 5)).await?;
    assert_eq!(attempts_by_id(&faulty).len(), 1, "expected attempts by the first waiter only");
    // There is one, or two while a new registration replaces an old one.
    let registrations = faulty.registrations();
    assert!(
        registrations <= 2,
        "expected one or two registrations of eight waiters, but got {registrations}"
    );
    assert_released(store.two.release(&lease).await?);
    in_order(waiters).await?;
    until(async || Ok(faulty.registrations() == 0)).await
}

async fn w6_two_queues_of_eight_are_all_served(store: Store) -> Result<()> {
    let key = fresh_key();
    let managers = [store.locks(), LockManager::new(store.two.clone())];
    let counter = Arc::new(AtomicUsize::new(0));
    let workers = race(16, |index| {
        let (key, locks, counter) = (key.clone(), managers[index % 2].clone(), counter.clone());
        async move {
            for _ in 0..2 {
                let work = async |_: &LockGuard| -> Result<()> {
                    // Read, pause, write: this would overwrite the count of any other worker
                    // inside.
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
    store.assert_free(&key).await?;
    Ok(())
}

/// How a waiter leaves the queue.
#[derive(Clone, Copy)]
enum Leave {
    Cancelled,
    Dropped,
    OutOfTime,
}

async fn w7_a_cancelled_waiter_delays_no_other(store: Store) -> Result<()> {
    leaves_at_every_position(store, Leave::Cancelled).await
}

async fn w7_a_dropped_waiter_delays_no_other(store: Store) -> Result<()> {
    leaves_at_every_position(store, Leave::Dropped).await
}

async fn w7_a_waiter_out_of_time_delays_no_other(store: Store) -> Result<()> {
    leaves_at_every_position(store, Leave::OutOfTime).await
}

async fn leaves_at_every_position(store: Store, leave: Leave) -> Result<()> {
    for position in 0..3 {
        let key = fresh_key();
        let lease = store.take(&key, LONG).await?;
        let (faulty, locks) = store.with_faults(|_, _| Fault::None);
        let token = CancellationToken::new();
        let mut waiters = Vec::new();
        for number in 0..3 {
            let request = long_wait(&store, locks.lock(&key));
            let request = match leave {
                Leave::Cancelled if number == position => request.cancel(token.clone()),
                Leave::OutOfTime if number == position => request.wait(SHORT),
                _ => request,
            };
            waiters.push(Waiter::for_fence(request).await);
        }
        until(async || Ok(faulty.count(Operation::Acquire) >= 1)).await?;
        go(leave, waiters.remove(position), &token, ErrorCode::AcquisitionTimeout).await;
        assert_eq!(locks.waiters(), 2, "expected the waiter to have left the queue");
        let released = Instant::now();
        assert_released(store.two.release(&lease).await?);
        in_order(waiters).await?;
        let waited = released.elapsed();
        assert!(
            waited < SOON,
            "expected the next waiter to be served at once, but it waited for {waited:?}"
        );
        locks.shutdown().await?;
        store.assert_free(&key).await?;
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
        Leave::Dropped => waiter.leave().await,
        Leave::OutOfTime => {
            assert_eq!(code(waiter.outcome().await), out_of_time);
        }
    }
}

/// The first waiter is dropped in the middle of an attempt that would be granted.
async fn w7_a_waiter_dropped_after_any_poll_delays_no_other(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let mut first = Box::pin(long_wait(&store, locks.lock(&key)).acquire());
        let first_poll = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
        let second = Waiter::for_fence(long_wait(&store, locks.lock(&key))).await;
        let guard = match first_poll {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => poll_then_drop(polls, first).await,
        };
        let done = guard.is_some();
        if let Some(guard) = guard {
            assert_released(guard?.release().await?);
        }
        second.outcome().await?;
        locks.shutdown().await?;
        assert_eq!(
            store.two.get(&key).await?,
            None,
            "expected the key to be free, but a lease remains"
        );
        if done {
            return Ok(());
        }
    }
    panic!("expected a grant within {MOST_POLLS} polls, but the call still waits");
}

const LEAVERS: [Leave; 3] = [Leave::Cancelled, Leave::Dropped, Leave::OutOfTime];

async fn w7_a_grant_whose_reply_comes_too_late_goes_to_the_next_waiter(store: Store) -> Result<()> {
    for leave in LEAVERS {
        let (faulty, locks, key, second) =
            leaves_in_its_attempt(&store, Fault::HoldReply, leave).await?;
        let opened = Instant::now();
        faulty.open();
        second.outcome().await?;
        let waited = opened.elapsed();
        assert!(
            waited < SOON,
            "expected the next waiter to be served at once, but it waited for {waited:?}"
        );
        locks.shutdown().await?;
        assert_eq!(
            store.two.get(&key).await?,
            None,
            "expected the key to be free, but a lease remains"
        );
    }
    Ok(())
}

async fn w7_a_grant_that_comes_too_late_is_released(store: Store) -> Result<()> {
    for leave in LEAVERS {
        let (faulty, locks, key, second) =
            leaves_in_its_attempt(&store, Fault::HoldRequest, leave).await?;
        // The outcome of the first attempt is unknown, so the second waiter does not wait for it.
        second.outcome().await?;
        faulty.open();
        locks.shutdown().await?;
        assert_eq!(
            store.two.get(&key).await?,
            None,
            "expected the key to be free, but a lease remains"
        );
    }
    Ok(())
}

/// The first of two waiters leaves while its attempt is held. The second goes on waiting.
async fn leaves_in_its_attempt(
    store: &Store,
    fault: Fault,
    leave: Leave,
) -> Result<(FaultyBackend, LockManager, Key, Waiter<Fence>)> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(first_attempt(fault));
    let token = CancellationToken::new();
    let request = long_wait(store, locks.lock(&key)).cancel(token.clone());
    let request = match leave {
        Leave::OutOfTime => request.wait(SHORT),
        Leave::Cancelled | Leave::Dropped => request,
    };
    let first = Waiter::for_fence(request).await;
    let second = Waiter::for_fence(long_wait(store, locks.lock(&key))).await;
    until(async || Ok(faulty.held() == 1)).await?;
    go(leave, first, &token, ErrorCode::NetworkTimeout).await;
    Ok((faulty, locks, key, second))
}

fn first_attempt(fault: Fault) -> impl Fn(Operation, usize) -> Fault {
    move |operation, before| match (operation, before) {
        (Operation::Acquire, 0) => fault,
        _ => Fault::None,
    }
}

async fn w7_shutdown_ends_all_waiters(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(Waiter::for_guard(long_wait(&store, locks.lock(&key))).await);
    }
    locks.shutdown().await?;
    for waiter in waiters {
        assert_eq!(code(waiter.outcome().await), ErrorCode::Aborted);
    }
    assert_eq!(locks.waiters(), 0);
    assert!(
        store.one.release(&lease).await?,
        "expected the holder's lease to be live, but release returned false"
    );
    store.assert_free(&key).await?;
    Ok(())
}

async fn w8_the_limit_counts_from_the_call(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let _first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    let asked = Instant::now();
    let outcome = locks.lock(&key).wait(SHORT).backoff(SLOW).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout);
    assert!(
        SHORT <= waited && waited < SOON,
        "expected the end at the limit, but it came after {waited:?}"
    );
    assert_eq!(attempts_by_id(&faulty).len(), 1, "expected attempts by the first waiter only");
    Ok(())
}

/// The second waiter becomes the first when half of its time is over.
async fn w8_the_limit_counts_from_the_call_for_a_waiter_that_becomes_first(
    store: Store,
) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let locks = store.locks();
    let first = Waiter::for_guard(long_wait(&store, locks.lock(&key))).await;
    let moves_up = async {
        sleep(SHORT / 2).await;
        first.leave().await;
        // The limit ends before this sleep does. A limit that started with the move would end
        // later.
        sleep(SHORT * 3 / 4).await;
    };
    let second = locks.lock(&key).wait(SHORT).backoff(QUICK).acquire();
    tokio::select! {
        // If both are ready, the limit wins, because a busy machine may poll late.
        biased;
        outcome = second => assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout),
        () = moves_up => panic!("expected the limit to count from the call, but it started again"),
    }
    Ok(())
}

async fn w8_a_failure_of_the_first_waiter_is_returned_as_it_is(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(|_, _| Fault::Fail(ErrorCode::RateLimited));
    let _first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    until(async || Ok(faulty.count(Operation::Acquire) >= 2)).await?;
    let asked = Instant::now();
    let outcome = locks.lock(&key).wait(SHORT).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::RateLimited);
    assert!(
        SHORT <= waited && waited < SOON,
        "expected the end at the limit, but it came after {waited:?}"
    );
    assert_eq!(attempts_by_id(&faulty).len(), 1, "expected attempts by the first waiter only");
    Ok(())
}

async fn w8_the_retry_limit_counts_own_attempts(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    // An attempt after a notification is not a retry, so notifications are off.
    let faulty = store.faulty(|_, _| Fault::None).without_notifications();
    let locks = LockManager::new(faulty.clone());
    let first = Waiter::for_guard(locks.lock(&key).wait(LONG).backoff(QUICK)).await;
    let request = locks.lock(&key).wait(LONG).max_retries(1).backoff(QUICK);
    let second = Waiter::for_guard(request).await;
    until(async || Ok(faulty.count(Operation::Acquire) >= 5)).await?;
    first.leave().await;
    assert_eq!(code(second.outcome().await), ErrorCode::AcquisitionTimeout);
    assert_eq!(
        attempts_by_id(&faulty).get(1),
        Some(&2),
        "expected one attempt and one retry by the second waiter"
    );
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
        waiters.push(Waiter::for_fence(long_wait(&store, locks.lock(key))).await);
        assert_eq!(locks.waiters(), number + 1);
    }
    waiters.remove(1).leave().await;
    assert_eq!(locks.waiters(), 2);
    for lease in &leases {
        assert_released(store.two.release(lease).await?);
    }
    for waiter in waiters {
        waiter.outcome().await?;
    }
    assert_eq!(locks.waiters(), 0);
    Ok(())
}

//! W7: a waiter that leaves the queue, at every position and in the middle of an attempt.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use syncguard::{CancellationToken, LockManager};
use syncguard_core::{Backend, ErrorCode, Fence, Key, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::Instant;

use crate::expect::{assert_out_of_time, assert_released, code};
use crate::store::{LONG, MOST_POLLS, SOON, Store, fresh_key, poll_then_drop, until};
use crate::waiter::{Waiter, in_order};

cases![
    w7_a_cancelled_waiter_delays_no_other,
    w7_a_dropped_waiter_delays_no_other,
    w7_a_waiter_out_of_time_delays_no_other,
    w7_a_waiter_dropped_after_any_poll_delays_no_other,
    w7_a_grant_whose_reply_comes_too_late_goes_to_the_next_waiter,
    w7_a_grant_that_comes_too_late_is_released,
];

const SHORT: Duration = Duration::from_millis(200);

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
            let request = store.long_wait(locks.lock(&key));
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
            let outcome = waiter.outcome().await;
            if out_of_time == ErrorCode::AcquisitionTimeout {
                assert_out_of_time(outcome);
            } else {
                assert_eq!(code(outcome), out_of_time);
            }
        }
    }
}

/// The first waiter is dropped in the middle of an attempt that would be granted.
async fn w7_a_waiter_dropped_after_any_poll_delays_no_other(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let mut first = Box::pin(store.long_wait(locks.lock(&key)).acquire());
        let first_poll = poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
        let second = Waiter::for_fence(store.long_wait(locks.lock(&key))).await;
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
    let request = store.long_wait(locks.lock(&key)).cancel(token.clone());
    let request = match leave {
        Leave::OutOfTime => request.wait(SHORT),
        Leave::Cancelled | Leave::Dropped => request,
    };
    let first = Waiter::for_fence(request).await;
    let second = Waiter::for_fence(store.long_wait(locks.lock(&key))).await;
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

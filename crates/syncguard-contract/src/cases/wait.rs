//! W1 to W5: waiting for a key, and when the wait ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager};
use syncguard_core::{Acquired, Backend, ErrorCode, Operation, Result};
use syncguard_memory::Fault;
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_out_of_time, assert_released, assert_rises, code};
use crate::store::{
    LONG, PAUSE, QUICK, SLOW, SOON, Store, fresh_id, fresh_key, operations, race, ttl, until, when,
};

cases![
    w1_the_default_ttl_is_30_seconds,
    w1_the_default_wait_is_5_seconds,
    w1_retries_are_limited,
    w1_try_acquire_makes_one_attempt,
    w2_the_limit_is_hard,
    w2_the_limit_is_hard_when_the_server_does_not_answer,
    w3_a_pause_is_cut_to_the_time_left,
    w3_a_pause_is_cut_to_the_holders_time,
    w4_contention_is_retried,
    w4_ten_workers_are_all_served,
    w4_a_transient_failure_is_retried_with_the_same_id,
    w4_a_transient_failure_that_lasts_is_returned_as_it_is,
    w4_any_other_failure_is_returned_at_once,
    w4_a_lost_grant_is_undone_when_the_wait_fails,
    w5_a_token_ends_the_wait,
    w5_a_token_ends_the_wait_when_the_server_does_not_answer,
    w5_a_token_cancelled_before_sends_nothing,
];

const SHORT: Duration = Duration::from_millis(200);

async fn w1_the_default_ttl_is_30_seconds(store: Store) -> Result<()> {
    let key = fresh_key();
    let guard = store.locks().lock(&key).acquire().await?;
    let record = store.two.get(&key).await?.expect(RECORD);
    let lasts = record.expires_at().since(record.acquired_at());
    assert_eq!(lasts, Duration::from_secs(30));
    assert_released(guard.release().await?);
    Ok(())
}

async fn w1_the_default_wait_is_5_seconds(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let asked = Instant::now();
    let outcome = store.locks().lock(&key).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout);
    assert!(
        waited >= Duration::from_secs(5),
        "expected the end at the limit, but it came after {waited:?}"
    );
    assert!(
        waited < Duration::from_secs(5) + SOON,
        "expected the end at the limit, but it came after {waited:?}"
    );
    Ok(())
}

async fn w1_retries_are_limited(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    // An attempt after a notification is not a retry, so notifications are off.
    let faulty = store.faulty(|_, _| Fault::None).without_notifications();
    let locks = LockManager::new(faulty.clone());
    let request = locks.lock(&key).max_retries(3).backoff(QUICK);
    assert_eq!(code(request.acquire().await), ErrorCode::AcquisitionTimeout);
    assert_eq!(faulty.count(Operation::Acquire), 4);
    Ok(())
}

async fn w1_try_acquire_makes_one_attempt(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let guard = locks.lock(&key).try_acquire().await?;
    let guard = guard.expect("expected a grant of the free key, but it was held");
    check!(locks.lock(&key).try_acquire().await?.is_none());
    assert_eq!(faulty.count(Operation::Acquire), 2);
    assert_released(guard.release().await?);
    Ok(())
}

async fn w2_the_limit_is_hard(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let locks = store.locks();
    let asked = Instant::now();
    let outcome = locks.lock(&key).wait(SHORT).backoff(QUICK).acquire().await;
    let waited = asked.elapsed();
    assert_out_of_time(outcome);
    assert!(
        SHORT <= waited && waited < SOON,
        "expected the end at the limit, but it came after {waited:?}"
    );
    assert_released(store.one.release(&lease).await?);
    // The limit may have interrupted an attempt. It is undone when its reply arrives.
    locks.shutdown().await?;
    store.assert_free(&key).await?;
    Ok(())
}

async fn w2_the_limit_is_hard_when_the_server_does_not_answer(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(unanswered_acquires);
    let asked = Instant::now();
    let outcome = locks.lock(&key).ttl(LONG).wait(SHORT).acquire().await;
    let waited = asked.elapsed();
    assert_eq!(code(outcome), ErrorCode::NetworkTimeout);
    assert!(
        SHORT <= waited && waited < SOON,
        "expected the end at the limit, but it came after {waited:?}"
    );
    faulty.open();
    until(async || Ok(faulty.count(Operation::Release) > 0)).await?;
    store.until_free(&key).await
}

fn unanswered_acquires(operation: Operation, _: usize) -> Fault {
    match operation {
        Operation::Acquire => Fault::HoldReply,
        _ => Fault::None,
    }
}

async fn w3_a_pause_is_cut_to_the_time_left(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let asked = Instant::now();
    let request = store.locks().lock(&key).wait(SHORT).backoff(SLOW);
    assert_out_of_time(request.acquire().await);
    let waited = asked.elapsed();
    assert!(waited < SOON, "expected the end at the limit, but it came after {waited:?}");
    Ok(())
}

/// If the backend reports the time left, that time ends the pause. If it does not, the backoff must
/// be short.
async fn w3_a_pause_is_cut_to_the_holders_time(store: Store) -> Result<()> {
    let held = fresh_key();
    store.take(&held, LONG).await?;
    let attempt = store.two.acquire(&held, &fresh_id(), ttl(LONG)).await?;
    let backoff = match attempt {
        Acquired::Held { remaining: None } => QUICK,
        _ => SLOW,
    };
    let (_, locks) = store.with_faults(|_, _| Fault::None);
    let key = fresh_key();
    store.take(&key, SHORT).await?;
    let asked = Instant::now();
    let request = locks.lock(&key).wait(LONG).backoff(backoff);
    let guard = request.acquire().await?;
    let waited = asked.elapsed();
    assert!(waited < SOON, "expected the end at the limit, but it came after {waited:?}");
    assert_released(guard.release().await?);
    Ok(())
}

async fn w4_contention_is_retried(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let request = locks.lock(&key).wait(LONG).backoff(QUICK);
    let release_after_two_attempts = async {
        until(async || Ok(faulty.count(Operation::Acquire) >= 2)).await?;
        store.two.release(&lease).await
    };
    let (guard, released) = tokio::join!(request.acquire(), release_after_two_attempts);
    assert_released(released?);
    let guard = guard?;
    assert_rises(lease.fence(), guard.fence());
    assert_released(guard.release().await?);
    Ok(())
}

async fn w4_ten_workers_are_all_served(store: Store) -> Result<()> {
    let key = fresh_key();
    let counter = Arc::new(AtomicUsize::new(0));
    let workers = race(10, |index| {
        let locks = LockManager::new(store.client(index));
        let (key, counter) = (key.clone(), counter.clone());
        async move {
            let request = locks.lock(&key).ttl(LONG).wait(LONG);
            let backoff = Backoff::fixed(Duration::from_millis(20));
            let work = async |_: &LockGuard| {
                // Read, pause, write: this would overwrite the count of any other worker inside.
                let seen = counter.load(Ordering::SeqCst);
                sleep(PAUSE).await;
                counter.store(seen + 1, Ordering::SeqCst);
                Ok(())
            };
            request.backoff(backoff).run(work).await
        }
    });
    workers.await.into_iter().collect::<Result<Vec<()>>>()?;
    assert_eq!(counter.load(Ordering::SeqCst), 10);
    store.assert_free(&key).await?;
    Ok(())
}

async fn w4_a_transient_failure_is_retried_with_the_same_id(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(|operation, before| match (operation, before) {
        (Operation::Acquire, 0) => Fault::Fail(ErrorCode::ServiceUnavailable),
        (Operation::Acquire, 1) => Fault::LoseReply(ErrorCode::NetworkTimeout),
        (Operation::Acquire, 2) => Fault::Fail(ErrorCode::RateLimited),
        _ => Fault::None,
    });
    let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(QUICK);
    // With another id, it would wait for the lease that its own second attempt was granted.
    let guard = request.acquire().await?;
    assert_eq!(faulty.count(Operation::Acquire), 4);
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!((record.id(), record.fence()), (guard.id(), guard.fence()));
    assert_eq!(
        faulty.count(Operation::Release),
        0,
        "expected the retry to find the grant, not to undo it"
    );
    assert_released(guard.release().await?);
    Ok(())
}

async fn w4_a_transient_failure_that_lasts_is_returned_as_it_is(store: Store) -> Result<()> {
    for lasting in
        [ErrorCode::ServiceUnavailable, ErrorCode::NetworkTimeout, ErrorCode::RateLimited]
    {
        let (faulty, locks) = store.with_faults(move |_, _| Fault::Fail(lasting));
        let request = || locks.lock(fresh_key()).backoff(QUICK);
        let outcome = request().max_retries(2).acquire().await;
        assert_eq!(code(outcome), lasting);
        assert_eq!(faulty.count(Operation::Acquire), 3);
        let asked = Instant::now();
        let outcome = request().wait(SHORT).acquire().await;
        assert_eq!(code(outcome), lasting);
        check!(asked.elapsed(), <, SOON);
    }
    Ok(())
}

async fn w4_any_other_failure_is_returned_at_once(store: Store) -> Result<()> {
    for failure in [ErrorCode::AuthFailed, ErrorCode::InvalidArgument, ErrorCode::Internal] {
        let (faulty, locks) = store.with_faults(move |_, _| Fault::Fail(failure));
        let outcome = locks.lock(fresh_key()).backoff(QUICK).acquire().await;
        assert_eq!(code(outcome), failure);
        assert_eq!(faulty.count(Operation::Acquire), 1);
    }
    Ok(())
}

async fn w4_a_lost_grant_is_undone_when_the_wait_fails(store: Store) -> Result<()> {
    let key = fresh_key();
    let (_, locks) = store.with_faults(|operation, _| match operation {
        Operation::Acquire => Fault::LoseReply(ErrorCode::NetworkTimeout),
        _ => Fault::None,
    });
    let request = locks.lock(&key).ttl(LONG).max_retries(1).backoff(QUICK);
    assert_eq!(code(request.acquire().await), ErrorCode::NetworkTimeout);
    let outcome = locks.lock(&key).ttl(LONG).try_acquire().await;
    assert_eq!(code(outcome), ErrorCode::NetworkTimeout);
    store.until_free(&key).await
}

async fn w5_a_token_ends_the_wait(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let token = CancellationToken::new();
    let request = locks.lock(&key).wait(LONG).cancel(token.clone());
    let tried = async || Ok(faulty.count(Operation::Acquire) >= 1);
    let cancelling = when(tried, || token.cancel());
    let (outcome, cancelled) = tokio::join!(request.acquire(), cancelling);
    cancelled?;
    assert_eq!(code(outcome), ErrorCode::Aborted);
    assert!(
        store.one.release(&lease).await?,
        "expected the holder's lease to be live, but release returned false"
    );
    locks.shutdown().await?;
    store.assert_free(&key).await?;
    Ok(())
}

async fn w5_a_token_ends_the_wait_when_the_server_does_not_answer(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(unanswered_acquires);
    let token = CancellationToken::new();
    let request = locks.lock(&key).ttl(LONG).wait(LONG).cancel(token.clone());
    let granted = async || Ok(store.two.get(&key).await?.is_some());
    let cancelling = when(granted, || token.cancel());
    let (outcome, cancelled) = tokio::join!(request.acquire(), cancelling);
    cancelled?;
    assert_eq!(code(outcome), ErrorCode::Aborted);
    faulty.open();
    store.until_free(&key).await
}

async fn w5_a_token_cancelled_before_sends_nothing(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let token = CancellationToken::new();
    token.cancel();
    let request = || locks.lock(fresh_key()).cancel(token.clone());
    assert_eq!(code(request().acquire().await), ErrorCode::Aborted);
    assert_eq!(code(request().try_acquire().await), ErrorCode::Aborted);
    assert_eq!(code(request().run(async |_| -> Result<()> { Ok(()) }).await), ErrorCode::Aborted);
    assert_eq!(operations(&faulty), []);
    Ok(())
}

//! W6, W8 and W10: the queue of waiters for a key in one manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use syncguard::{Backoff, LockGuard, LockManager};
use syncguard_core::{Backend, ErrorCode, Operation, Result};
use syncguard_memory::Fault;
use tokio::time::{Instant, sleep};

use crate::expect::{assert_out_of_time, assert_released, code};
use crate::store::{LONG, PAUSE, QUICK, SLOW, SOON, Store, attempts_by_id, fresh_key, race, until};
use crate::waiter::{Waiter, in_order};

cases![
    w6_first_come_first_served,
    w6_first_come_first_served_behind_a_guard,
    w6_only_the_first_waiter_sends_attempts,
    w6_two_queues_of_eight_are_all_served,
    w7_shutdown_ends_all_waiters,
    w8_the_limit_counts_from_the_call,
    w8_the_limit_counts_from_the_call_for_a_waiter_that_becomes_first,
    w8_a_failure_of_the_first_waiter_is_returned_as_it_is,
    w8_the_retry_limit_counts_own_attempts,
    w10_waiters_are_counted,
];

const SHORT: Duration = Duration::from_millis(200);

async fn w6_first_come_first_served(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..5 {
        waiters.push(Waiter::for_fence(store.long_wait(locks.lock(&key))).await);
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
        waiters.push(Waiter::for_fence(store.long_wait(locks.lock(&key))).await);
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

async fn w7_shutdown_ends_all_waiters(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let lease = store.take(&key, LONG).await?;
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(Waiter::for_guard(store.long_wait(locks.lock(&key))).await);
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
    assert_out_of_time(outcome);
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
    let first = Waiter::for_guard(store.long_wait(locks.lock(&key))).await;
    let becomes_first = async {
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
        outcome = second => assert_out_of_time(outcome),
        () = becomes_first => panic!("expected the limit to count from the call, but it started again"),
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
        waiters.push(Waiter::for_fence(store.long_wait(locks.lock(key))).await);
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

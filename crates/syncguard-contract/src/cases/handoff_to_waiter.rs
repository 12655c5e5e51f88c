//! G5 and G8: a release that serves the first waiter.
//!
//! If a backend does not support handoff, a release and an attempt must give the same result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use syncguard::{Backoff, LockManager, LockRequest};
use syncguard_core::{Backend, Operation, Result};
use syncguard_memory::Fault;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::expect::{RECORD, assert_not_released, assert_released, assert_rises};
use crate::handoff_setup::{Setup, quickly, slowly};
use crate::store::{LONG, SLOW, Store, fresh_key, operations, until};
use crate::waiter::Waiter;

cases![
    g5_the_first_waiter_is_served_by_one_request,
    g5_a_dropped_guard_serves_the_first_waiter,
    g5_the_new_guard_is_like_any_other,
    g5_the_new_guard_is_kept_alive,
    g5_nothing_is_handed_off_if_it_is_not_declared,
    g8_other_clients_are_served,
];

/// After this time in a row, the runtime releases the key to other processes (G8).
const HANDOFF_LIMIT: Duration = Duration::from_secs(1);

async fn g5_the_first_waiter_is_served_by_one_request(store: Store) -> Result<()> {
    let setup = Setup::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let supports_handoff = setup.supports_handoff();
    let Setup { faulty, old, released, waiters, .. } = setup;
    assert!(
        released.expect("expected a release under way, but there is none").outcome().await?,
        "it was live"
    );
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        if supports_handoff {
            assert_eq!(operations(&faulty), [Operation::Acquire, Operation::Handoff]);
        } else {
            assert_eq!(
                faulty.count(Operation::Handoff),
                0,
                "expected no handoff, because it is not declared"
            );
        }
        assert_rises(old.fence(), guard.fence());
        assert_released(guard.release().await?);
    }
    Ok(())
}

async fn g5_a_dropped_guard_serves_the_first_waiter(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let (key, begun) = (fresh_key(), Instant::now());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let fence = guard.fence();
    let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(SLOW);
    let waiter = Waiter::for_guard(request).await;
    drop(guard);
    let receiver = waiter.outcome().await?;
    let handed_off = usize::from(faulty.capabilities().supports_handoff());
    if begun.elapsed() < HANDOFF_LIMIT {
        assert_eq!(faulty.count(Operation::Handoff), handed_off);
    }
    assert_rises(fence, receiver.fence());
    assert_released(receiver.release().await?);
    Ok(())
}

async fn g5_the_new_guard_is_like_any_other(store: Store) -> Result<()> {
    let setup = Setup::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let Setup { key, old, waiters, .. } = setup;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        let record = store.two.get(&key).await?.expect(RECORD);
        assert_eq!((guard.key(), guard.id()), (record.key(), record.id()));
        assert_eq!((guard.fence(), guard.expires_at()), (record.fence(), record.expires_at()));
        assert_rises(old.fence(), guard.fence());
        check!(guard.id() != old.id());
        assert_eq!(store.two.find(old.id()).await?, None, "expected the old lease to be gone");
        // The TTL is that of the waiter, not that of the old holder.
        assert_eq!(record.expires_at().since(record.acquired_at()), LONG * 2);
        check!(LONG, <, guard.remaining());
        check!(guard.remaining(), <=, LONG * 2);
        check!(!guard.is_lost());
        let (fence, before) = (guard.fence(), guard.expires_at());
        let after = guard.extend(LONG * 3).await?;
        check!(after.since(before), >=, LONG);
        assert_eq!((guard.fence(), guard.expires_at()), (fence, after));
        assert_released(guard.release().await?);
        store.assert_free(&key).await?;
    }
    Ok(())
}

async fn g5_the_new_guard_is_kept_alive(store: Store) -> Result<()> {
    let kept = |request: LockRequest| slowly(request).ttl(Duration::from_secs(9)).keep_alive();
    let setup = Setup::new(&store, 1, kept, |_, _| Fault::None).await?;
    let Setup { faulty, waiters, .. } = setup;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        until(async || Ok(faulty.count(Operation::Extend) > 0)).await?;
        assert_released(store.two.release_by_id(guard.id()).await?);
        guard.lost().await;
        check!(guard.is_lost());
        check!(guard.remaining().is_zero());
        assert_not_released(guard.release().await?);
    }
    Ok(())
}

async fn g5_nothing_is_handed_off_if_it_is_not_declared(store: Store) -> Result<()> {
    let faulty = store.faulty(|_, _| Fault::None).without_handoff();
    let locks = LockManager::new(faulty.clone());
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let waiter = Waiter::for_fence(quickly(locks.lock(&key).ttl(LONG).wait(LONG))).await;
    let fence = guard.fence();
    assert_released(guard.release().await?);
    assert_rises(fence, waiter.outcome().await?);
    assert_eq!(faulty.count(Operation::Handoff), 0);
    assert_eq!(faulty.count(Operation::Release), 2);
    store.assert_free(&key).await?;
    Ok(())
}

/// The workers of one manager hand the key to each other until a worker of another manager is
/// served. Their queue is never empty, and they hardly ever send an attempt.
async fn g8_other_clients_are_served(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let served = Arc::new(AtomicBool::new(false));
    let grants = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..20 {
        let (key, locks) = (key.clone(), locks.clone());
        let (served, grants) = (served.clone(), grants.clone());
        workers.spawn(async move {
            while !served.load(Ordering::SeqCst) {
                let request = locks.lock(&key).ttl(LONG).wait(LONG);
                let backoff = Backoff::fixed(Duration::from_millis(500));
                let guard = request.backoff(backoff).acquire().await?;
                grants.fetch_add(1, Ordering::SeqCst);
                assert_released(guard.release().await?);
            }
            Result::Ok(())
        });
    }
    until(async || Ok(grants.load(Ordering::SeqCst) >= 3)).await?;
    let other = LockManager::new(store.two.clone());
    let request = other.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
    let guard = request.acquire().await?;
    served.store(true, Ordering::SeqCst);
    assert_released(guard.release().await?);
    workers.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
    if faulty.capabilities().receives_notifications() {
        let calls = operations(&faulty);
        let in_a_row = calls.split(|call| *call != Operation::Handoff).map(<[_]>::len);
        assert!(
            in_a_row.max() < Some(16),
            "expected fewer than 16 handoffs in a row, but got more: {calls:?}"
        );
    }
    store.assert_free(&key).await?;
    Ok(())
}

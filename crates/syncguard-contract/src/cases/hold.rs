//! H1 and H6: what a guard reports, work under a lock, and a lease that moves to another guard.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncguard::{LockGuard, LockManager};
use syncguard_core::{Backend, Error, ErrorCode, Fence, Operation, Result};
use syncguard_memory::Fault;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_not_released, assert_released};
use crate::store::{LONG, MARGIN, Store, fresh_key, poll_then_drop, until};

cases![
    t4_the_deadline_counts_from_before_the_sending,
    h1_a_guard_describes_its_lease,
    h1_extend_moves_the_expiry,
    h1_extend_of_an_ended_lease_is_lost,
    h1_release_is_true_once,
    h1_release_of_a_lease_that_was_taken_away_is_false,
    h1_a_detached_lease_goes_on_without_its_guard,
    h1_a_detached_lease_is_adopted_elsewhere,
    h1_a_lease_that_ended_is_not_adopted,
    h1_a_lease_of_another_key_is_not_adopted,
    h6_run_holds_the_lock_around_the_work,
    h6_run_returns_an_error_of_the_work_and_releases,
    h6_run_releases_when_the_work_panics,
    h6_run_releases_when_it_is_dropped,
    h6_run_stops_the_work_when_the_lease_is_lost,
];

async fn t4_the_deadline_counts_from_before_the_sending(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, _| match operation {
        Operation::Acquire => Fault::HoldReply,
        _ => Fault::None,
    });
    let key = fresh_key();
    let late = Duration::from_millis(300);
    let open_late = async {
        until(async || Ok(store.two.get(&key).await?.is_some())).await?;
        sleep(late).await;
        faulty.open();
        Result::<_>::Ok(())
    };
    let acquire = async {
        let guard = locks.lock(&key).ttl(LONG).acquire().await?;
        Result::<_>::Ok((guard.remaining(), guard))
    };
    let ((remaining, guard), ()) = tokio::try_join!(acquire, open_late)?;
    assert!(
        remaining <= LONG - late,
        "expected the deadline to count from the request, but {remaining:?} remain"
    );
    assert_released(guard.release().await?);
    Ok(())
}

async fn h1_a_guard_describes_its_lease(store: Store) -> Result<()> {
    let (key, asked) = (fresh_key(), Instant::now());
    let guard = store.locks().lock(&key).ttl(LONG).acquire().await?;
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!((guard.key(), guard.id()), (record.key(), record.id()));
    assert_eq!(guard.fence(), record.fence());
    assert_eq!(guard.expires_at(), record.expires_at());
    let lease = guard.lease();
    assert_eq!((lease.key(), lease.id()), (guard.key(), guard.id()));
    let remaining = guard.remaining();
    assert!(remaining <= LONG && remaining + MARGIN + asked.elapsed() >= LONG, "{remaining:?}");
    check!(!guard.is_lost());
    assert_released(guard.release().await?);
    Ok(())
}

async fn h1_extend_moves_the_expiry(store: Store) -> Result<()> {
    let key = fresh_key();
    let guard = store.locks().lock(&key).ttl(LONG).acquire().await?;
    let (fence, before) = (guard.fence(), guard.expires_at());
    let after = guard.extend(LONG * 2).await?;
    check!(after.since(before), >=, LONG);
    assert_eq!((guard.expires_at(), guard.fence()), (after, fence));
    check!(guard.remaining(), >, LONG);
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!(record.expires_at(), after);
    let shorter = guard.extend(LONG).await?;
    assert!(shorter < after, "expected extend to replace the TTL, but it added to it");
    check!(guard.remaining(), <=, LONG);
    assert_released(guard.release().await?);
    Ok(())
}

async fn h1_extend_of_an_ended_lease_is_lost(store: Store) -> Result<()> {
    let guard = store.locks().lock(fresh_key()).ttl(LONG).acquire().await?;
    assert_released(store.two.release_by_id(guard.id()).await?);
    let error = guard.extend(LONG).await.expect_err("expected `Lost`, but extend succeeded");
    assert_eq!(error.code(), ErrorCode::Lost);
    assert_eq!(error.key(), Some(guard.key().fingerprint()));
    check!(guard.is_lost());
    check!(guard.remaining().is_zero());
    guard.lost().await;
    assert_not_released(guard.release().await?);
    Ok(())
}

async fn h1_release_is_true_once(store: Store) -> Result<()> {
    let key = fresh_key();
    let guard = store.locks().lock(&key).ttl(LONG).acquire().await?;
    let lease = guard.lease();
    assert_released(guard.release().await?);
    assert_not_released(store.one.release(&lease).await?);
    store.assert_free(&key).await?;
    Ok(())
}

async fn h1_release_of_a_lease_that_was_taken_away_is_false(store: Store) -> Result<()> {
    let key = fresh_key();
    let guard = store.locks().lock(&key).ttl(LONG).acquire().await?;
    assert_released(store.two.release_by_id(guard.id()).await?);
    let successor = store.take(&key, LONG).await?;
    assert_not_released(guard.release().await?);
    assert!(
        store.two.release(&successor).await?,
        "expected the successor's release to return true, but its lease was gone"
    );
    Ok(())
}

async fn h1_a_detached_lease_goes_on_without_its_guard(store: Store) -> Result<()> {
    let key = fresh_key();
    let locks = store.locks();
    let lease = locks.lock(&key).ttl(LONG).acquire().await?.detach();
    locks.shutdown().await?;
    store.assert_held(&key).await?;
    assert_released(store.two.release(&lease).await?);
    Ok(())
}

async fn h1_a_detached_lease_is_adopted_elsewhere(store: Store) -> Result<()> {
    let key = fresh_key();
    let (here, there) = (store.locks(), LockManager::new(store.two.clone()));
    let guard = here.lock(&key).ttl(LONG).acquire().await?;
    let (fence, lease) = (guard.fence(), guard.detach());
    let adopted = there.lock(&key).ttl(LONG * 2).adopt(&lease).await?;
    let adopted = adopted.expect("expected the live lease to be adopted, but got None");
    assert_eq!((adopted.id(), adopted.fence()), (lease.id(), fence));
    check!(adopted.expires_at().since(lease.expires_at()), >=, LONG);
    drop(adopted);
    store.until_free(&key).await
}

async fn h1_a_lease_that_ended_is_not_adopted(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let locks = store.locks();
    check!(locks.lock(&key).adopt(&dead).await?.is_none());
    let successor = store.take(&key, LONG).await?;
    check!(locks.lock(&key).adopt(&dead).await?.is_none());
    locks.shutdown().await?;
    assert!(
        store.two.release(&successor).await?,
        "expected the successor's release to return true, but its lease was gone"
    );
    Ok(())
}

async fn h1_a_lease_of_another_key_is_not_adopted(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let outcome = store.locks().lock(fresh_key()).adopt(&lease).await;
    let error =
        outcome.expect_err("expected an adoption for another key to fail, but it succeeded");
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert_released(store.one.release(&lease).await?);
    Ok(())
}

async fn h6_run_holds_the_lock_around_the_work(store: Store) -> Result<()> {
    let (outer, inner) = (fresh_key(), fresh_key());
    let locks = store.locks();
    let fences = locks.lock(&outer).ttl(LONG).run(async |lock| -> Result<_> {
        store.assert_held(&outer).await?;
        let below = locks.lock(&inner).ttl(LONG).run(async |lock| -> Result<Fence> {
            store.assert_held(&inner).await?;
            Ok(lock.fence())
        });
        let below = below.await?;
        store.assert_free(&inner).await?;
        Ok((lock.fence(), below))
    });
    let (outer_fence, inner_fence) = fences.await?;
    check!(outer_fence.get(), >, 0);
    check!(inner_fence.get(), >, 0);
    store.assert_free(&outer).await?;
    Ok(())
}

/// The error type of a user.
#[derive(Debug)]
struct WorkFailed;

impl From<Error> for WorkFailed {
    fn from(error: Error) -> Self {
        panic!("expected the error of the work, but the lock failed: {error}")
    }
}

async fn h6_run_returns_an_error_of_the_work_and_releases(store: Store) -> Result<()> {
    let key = fresh_key();
    let work = async |_: &LockGuard| Err::<(), _>(WorkFailed);
    let outcome = store.locks().lock(&key).ttl(LONG).run(work).await;
    assert!(outcome.is_err(), "expected the error of the work, but it was lost");
    store.assert_free(&key).await?;
    Ok(())
}

async fn h6_run_releases_when_the_work_panics(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let mut tasks = JoinSet::new();
    let request = locks.lock(&key).ttl(LONG);
    tasks.spawn(request.run(async |_: &LockGuard| -> Result<()> {
        std::panic::resume_unwind(Box::new("expected"))
    }));
    let outcome = tasks.join_next().await.expect("one task");
    check!(outcome.is_err_and(|error| error.is_panic()));
    store.until_free(&key).await
}

async fn h6_run_releases_when_it_is_dropped(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let started = Arc::new(AtomicBool::new(false));
    let running = locks.lock(&key).ttl(LONG).run(async |_| {
        started.store(true, Ordering::SeqCst);
        pending::<Result<()>>().await
    });
    tokio::select! {
        _ = running => panic!("expected the work to go on, but it ended"),
        begun = until(async || Ok(started.load(Ordering::SeqCst))) => begun?,
    }
    store.until_free(&key).await?;
    // It is dropped before the work starts, unless the backend answers at once.
    let not_begun = locks.lock(&key).ttl(LONG).run(async |_| pending::<Result<()>>().await);
    check!(poll_then_drop(1, not_begun).await.is_none());
    store.until_free(&key).await
}

async fn h6_run_stops_the_work_when_the_lease_is_lost(store: Store) -> Result<()> {
    let dropped = Arc::new(AtomicBool::new(false));
    let guard_of_work = SetOnDrop(dropped.clone());
    let request = store.locks().lock(fresh_key()).ttl(Duration::from_secs(2)).keep_alive();
    let outcome = request.run(async |lock| {
        let _stopped = guard_of_work;
        check!(store.two.release_by_id(lock.id()).await.is_ok());
        pending::<Result<()>>().await
    });
    let error = outcome.await.expect_err("expected release to return true, but the lease was lost");
    assert_eq!(error.code(), ErrorCode::Lost);
    assert!(dropped.load(Ordering::SeqCst), "expected the work to be dropped, but it goes on");
    Ok(())
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

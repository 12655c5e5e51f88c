//! C: futures that are dropped at every await point.

use syncguard::{Backoff, Jitter, LockManager};
use syncguard_core::{Backend, Key, Lease, Operation, Result};
use syncguard_memory::Fault;

use crate::expect::{assert_extended, assert_no_record, assert_released, assert_rises};
use crate::store::{
    LONG, MOST_POLLS, PAUSE, Store, fresh_key, operations, poll_then_drop, ttl, until,
};

cases![
    c1_an_acquire_dropped_after_any_poll_leaves_no_lease,
    c1_a_single_attempt_dropped_after_any_poll_leaves_no_lease,
    c1_a_run_dropped_after_any_poll_leaves_no_lease,
    c1_a_wait_dropped_after_any_poll_leaves_the_holder_alone,
    c1_a_grant_whose_reply_comes_late_is_released,
    c1_a_grant_that_comes_late_is_released,
    c1_an_adoption_dropped_after_any_poll_keeps_the_lease,
    c2_a_backends_release_dropped_after_any_poll_is_whole,
    c2_a_backends_extend_dropped_after_any_poll_is_whole,
    c2_a_guards_release_dropped_after_any_poll_goes_on,
    c2_a_guards_extend_dropped_after_any_poll_is_whole,
];

async fn c1_an_acquire_dropped_after_any_poll_leaves_no_lease(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    for polls in 0..MOST_POLLS {
        let acquire = locks.lock(&key).ttl(LONG).wait(LONG).acquire();
        let Some(guard) = poll_then_drop(polls, acquire).await else {
            store.until_free(&key).await?;
            continue;
        };
        assert_released(guard?.release().await?);
        return settled(&store, &locks, &key).await;
    }
    panic!("expected a grant within {MOST_POLLS} polls, but the call still waits");
}

async fn c1_a_single_attempt_dropped_after_any_poll_leaves_no_lease(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let attempt = locks.lock(&key).ttl(LONG).try_acquire();
        let Some(guard) = poll_then_drop(polls, attempt).await else {
            settled(&store, &locks, &key).await?;
            continue;
        };
        assert!(
            guard?.expect("expected a grant of the free key, but it was held").release().await?
        );
        return Ok(());
    }
    panic!("expected a grant within {MOST_POLLS} polls, but the call still waits");
}

async fn c1_a_run_dropped_after_any_poll_leaves_no_lease(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let run = locks.lock(&key).ttl(LONG).run(async |_| -> Result<()> {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let done = poll_then_drop(polls, run).await;
        settled(&store, &locks, &key).await?;
        if let Some(outcome) = done {
            return outcome;
        }
    }
    panic!("expected `run` to end within {MOST_POLLS} polls, but it still runs");
}

/// Waits for all background work. The key must then be free.
async fn settled(store: &Store, locks: &LockManager, key: &Key) -> Result<()> {
    locks.shutdown().await?;
    assert_eq!(store.two.get(key).await?, None, "expected the key to be free, but a lease remains");
    Ok(())
}

async fn c1_a_wait_dropped_after_any_poll_leaves_the_holder_alone(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let held = store.two.get(&key).await?;
    let locks = store.locks();
    for polls in 0..20 {
        let backoff = Backoff::fixed(PAUSE).with_jitter(Jitter::None);
        let wait = locks.lock(&key).wait(LONG).backoff(backoff).acquire();
        assert!(
            poll_then_drop(polls, wait).await.is_none(),
            "expected the key to stay held, but the wait ended"
        );
    }
    locks.shutdown().await?;
    assert_eq!(store.two.get(&key).await?, held);
    assert_released(store.one.release(&lease).await?);
    store.assert_free(&key).await?;
    Ok(())
}

async fn c1_a_grant_whose_reply_comes_late_is_released(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(late_acquires(Fault::HoldReply));
    let key = fresh_key();
    let acquire = locks.lock(&key).ttl(LONG).wait(LONG).acquire();
    tokio::select! {
        _ = acquire => panic!("expected the acquire to wait for its reply, but it ended"),
        granted = until(async || Ok(store.two.get(&key).await?.is_some())) => granted?,
    }
    faulty.open();
    settled(&store, &locks, &key).await
}

async fn c1_a_grant_that_comes_late_is_released(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(late_acquires(Fault::HoldRequest));
    let key = fresh_key();
    let acquire = locks.lock(&key).ttl(LONG).wait(LONG).acquire();
    tokio::select! {
        _ = acquire => panic!("expected the acquire to wait for its request, but it ended"),
        sent = until(async || Ok(faulty.count(Operation::Acquire) == 1)) => sent?,
    }
    faulty.open();
    settled(&store, &locks, &key).await?;
    let calls = [Operation::Acquire, Operation::Release];
    assert_eq!(operations(&faulty), calls, "expected the release after the acquire");
    Ok(())
}

fn late_acquires(fault: Fault) -> impl Fn(Operation, usize) -> Fault {
    move |operation, _| match operation {
        Operation::Acquire => fault,
        _ => Fault::None,
    }
}

async fn c1_an_adoption_dropped_after_any_poll_keeps_the_lease(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let lease = store.take(&key, LONG).await?;
        let adopt = locks.lock(&key).ttl(LONG * 2).adopt(&lease);
        if let Some(adopted) = poll_then_drop(polls, adopt).await {
            assert!(adopted?.expect("expected a live lease, but got none").release().await?);
            return Ok(());
        }
        locks.shutdown().await?;
        // The lease is live, extended or not, and its owner can try again.
        let adopted = store.locks().lock(&key).ttl(LONG).adopt(&lease).await?;
        assert_released(
            adopted.expect("expected the lease to be live, but it had ended").release().await?,
        );
    }
    panic!("expected an adoption within {MOST_POLLS} polls, but the call still waits");
}

async fn c2_a_backends_release_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let key = fresh_key();
        let lease = store.take(&key, LONG).await?;
        let held = store.two.get(&key).await?;
        if let Some(released) = poll_then_drop(polls, store.one.release(&lease)).await {
            assert_released(released?);
            return Ok(());
        }
        // The release happened, will happen, or never will.
        let seen = store.two.get(&key).await?;
        assert!(
            seen.is_none() || seen == held,
            "expected the lease unchanged or gone, but got {seen:?}"
        );
        store.two.release(&lease).await?;
        let next = store.take(&key, LONG).await?;
        assert_rises(lease.fence(), next.fence());
        assert_no_record(store.one.find(lease.id()).await?);
    }
    panic!("expected a release within {MOST_POLLS} polls, but the call still waits");
}

async fn c2_a_backends_extend_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let lease = store.take(&fresh_key(), LONG).await?;
        let extend = store.one.extend(&lease, ttl(LONG * 2));
        if let Some(extended) = poll_then_drop(polls, extend).await {
            assert_extended(extended?);
            return Ok(());
        }
        assert_whole(&store, &lease).await?;
        assert_released(store.two.release(&lease).await?);
    }
    panic!("expected an extension within {MOST_POLLS} polls, but the call still waits");
}

async fn c2_a_guards_release_dropped_after_any_poll_goes_on(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let guard = locks.lock(&key).ttl(LONG).acquire().await?;
        let done = poll_then_drop(polls, guard.release()).await;
        settled(&store, &locks, &key).await?;
        if let Some(released) = done {
            assert_released(released?);
            return Ok(());
        }
    }
    panic!("expected a release within {MOST_POLLS} polls, but the call still waits");
}

async fn c2_a_guards_extend_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let guard = store.locks().lock(fresh_key()).ttl(LONG).acquire().await?;
        let done = poll_then_drop(polls, guard.extend(LONG * 2)).await;
        assert_whole(&store, &guard.lease()).await?;
        check!(!guard.is_lost());
        assert_released(guard.release().await?);
        if let Some(extended) = done {
            extended?;
            return Ok(());
        }
    }
    panic!("expected an extension within {MOST_POLLS} polls, but the call still waits");
}

/// The lease is live, has the old expiry or a fully extended one, and is otherwise unchanged.
async fn assert_whole(store: &Store, lease: &Lease) -> Result<()> {
    let by_key = store.two.get(lease.key()).await?.expect("expected a live lease, but got none");
    let by_id = store.two.find(lease.id()).await?.expect("expected a live lease, but got none");
    for record in [by_key, by_id] {
        assert_eq!((record.id(), record.fence()), (lease.id(), lease.fence()));
        let gained = record.expires_at().since(lease.expires_at());
        assert!(
            gained.is_zero() || gained >= LONG,
            "expected the old expiry or a full extension, but the expiry moved by {gained:?}"
        );
    }
    Ok(())
}

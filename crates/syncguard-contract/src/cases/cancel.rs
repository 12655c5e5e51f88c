//! C: futures that are dropped, at every await point.

use syncguard::{Backoff, Jitter, LockManager};
use syncguard_core::{Backend, Key, Lease, Operation, Result};
use syncguard_memory::Fault;

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
        assert!(guard?.release().await?);
        return settled(&store, &locks, &key).await;
    }
    panic!("no lock after {MOST_POLLS} polls");
}

async fn c1_a_single_attempt_dropped_after_any_poll_leaves_no_lease(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let attempt = locks.lock(&key).ttl(LONG).try_acquire();
        let Some(guard) = poll_then_drop(polls, attempt).await else {
            settled(&store, &locks, &key).await?;
            continue;
        };
        assert!(guard?.expect("a free key is granted").release().await?);
        return Ok(());
    }
    panic!("no lock after {MOST_POLLS} polls");
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
    panic!("not done after {MOST_POLLS} polls");
}

/// Once all background work is done, nobody holds the key.
async fn settled(store: &Store, locks: &LockManager, key: &Key) -> Result<()> {
    locks.shutdown().await?;
    assert_eq!(store.two.get(key).await?, None, "a lease remains");
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
        assert!(poll_then_drop(polls, wait).await.is_none(), "a held key");
    }
    locks.shutdown().await?;
    assert_eq!(store.two.get(&key).await?, held);
    assert!(store.one.release(&lease).await?);
    assert!(!store.is_held(&key).await?);
    Ok(())
}

async fn c1_a_grant_whose_reply_comes_late_is_released(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(late_acquires(Fault::HoldReply));
    let key = fresh_key();
    let acquire = locks.lock(&key).ttl(LONG).wait(LONG).acquire();
    tokio::select! {
        _ = acquire => panic!("there was no reply"),
        granted = until(async || Ok(store.two.get(&key).await?.is_some())) => granted?,
    }
    faulty.open();
    settled(&store, &locks, &key).await
}

async fn c1_a_grant_that_comes_late_is_released(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(late_acquires(Fault::HoldRequest));
    let key = fresh_key();
    let acquire = locks.lock(&key).ttl(LONG).wait(LONG).acquire();
    tokio::select! {
        _ = acquire => panic!("there was no grant"),
        sent = until(async || Ok(faulty.count(Operation::Acquire) == 1)) => sent?,
    }
    faulty.open();
    settled(&store, &locks, &key).await?;
    let calls = [Operation::Acquire, Operation::Release];
    assert_eq!(operations(&faulty), calls, "it must not overtake the grant");
    Ok(())
}

fn late_acquires(trouble: Fault) -> impl Fn(Operation, usize) -> Fault {
    move |operation, _| match operation {
        Operation::Acquire => trouble,
        _ => Fault::None,
    }
}

async fn c1_an_adoption_dropped_after_any_poll_keeps_the_lease(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let lease = store.take(&key, LONG).await?;
        let adopt = locks.lock(&key).ttl(LONG * 2).adopt(&lease);
        if let Some(adopted) = poll_then_drop(polls, adopt).await {
            assert!(adopted?.expect("it is live").release().await?);
            return Ok(());
        }
        locks.shutdown().await?;
        // The lease stands, extended or not, and its owner can try again.
        let adopted = store.locks().lock(&key).ttl(LONG).adopt(&lease).await?;
        assert!(adopted.expect("nobody ended it").release().await?);
    }
    panic!("not adopted after {MOST_POLLS} polls");
}

async fn c2_a_backends_release_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let key = fresh_key();
        let lease = store.take(&key, LONG).await?;
        let held = store.two.get(&key).await?;
        if let Some(released) = poll_then_drop(polls, store.one.release(&lease)).await {
            assert!(released?);
            return Ok(());
        }
        // It was carried out, or will be, or not.
        let seen = store.two.get(&key).await?;
        assert!(seen.is_none() || seen == held, "half a release: {seen:?}");
        store.two.release(&lease).await?;
        let next = store.take(&key, LONG).await?;
        assert!(next.fence() > lease.fence());
        assert_eq!(store.one.find(lease.id()).await?, None);
    }
    panic!("not released after {MOST_POLLS} polls");
}

async fn c2_a_backends_extend_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let lease = store.take(&fresh_key(), LONG).await?;
        let extend = store.one.extend(&lease, ttl(LONG * 2));
        if let Some(extended) = poll_then_drop(polls, extend).await {
            assert!(extended?.is_some());
            return Ok(());
        }
        assert_whole(&store, &lease).await?;
        assert!(store.two.release(&lease).await?);
    }
    panic!("not extended after {MOST_POLLS} polls");
}

async fn c2_a_guards_release_dropped_after_any_poll_goes_on(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let (key, locks) = (fresh_key(), store.locks());
        let guard = locks.lock(&key).ttl(LONG).acquire().await?;
        let done = poll_then_drop(polls, guard.release()).await;
        settled(&store, &locks, &key).await?;
        if let Some(released) = done {
            assert!(released?);
            return Ok(());
        }
    }
    panic!("not released after {MOST_POLLS} polls");
}

async fn c2_a_guards_extend_dropped_after_any_poll_is_whole(store: Store) -> Result<()> {
    for polls in 0..MOST_POLLS {
        let guard = store.locks().lock(fresh_key()).ttl(LONG).acquire().await?;
        let done = poll_then_drop(polls, guard.extend(LONG * 2)).await;
        assert_whole(&store, &guard.lease()).await?;
        assert!(!guard.is_lost());
        assert!(guard.release().await?);
        if let Some(extended) = done {
            extended?;
            return Ok(());
        }
    }
    panic!("not extended after {MOST_POLLS} polls");
}

/// The lease is live, with the old expiry or a new one, and unchanged otherwise.
async fn assert_whole(store: &Store, lease: &Lease) -> Result<()> {
    let by_key = store.two.get(lease.key()).await?.expect("it is live");
    let by_id = store.two.find(lease.id()).await?.expect("it is live");
    for record in [by_key, by_id] {
        assert_eq!((record.id(), record.fence()), (lease.id(), lease.fence()));
        let gained = record.expires_at().since(lease.expires_at());
        assert!(gained.is_zero() || gained >= LONG, "half an extension");
    }
    Ok(())
}

//! L: what a look shows, and that it only looks.

use std::time::Duration;

use syncguard_core::{Backend, LockRecord, Result, TOLERANCE};
use tokio::time::sleep;

use crate::store::{GRAIN, LONG, PAUSE, Store, fresh_id, fresh_key, race, ttl};

cases![
    l1_by_key_and_by_id_show_the_lease,
    l1_nothing_for_what_is_unknown,
    l1_nothing_for_a_dead_lease,
    l1_nothing_for_a_released_lease,
    l1_by_id_never_shows_the_successor,
    l1_an_extension_shows_at_once,
    l1_ten_looks_at_once_agree,
    l2_looks_at_a_live_lease_change_nothing,
    l2_looks_at_a_free_key_leave_it_free,
    l2_looks_at_a_dead_lease_leave_the_fence_counter,
];

async fn l1_by_key_and_by_id_show_the_lease(store: Store) -> Result<()> {
    for _ in 0..3 {
        let lease = store.take(&fresh_key(), LONG).await?;
        let by_key = store.two.get(lease.key()).await?.expect("it is held");
        let by_id = store.two.find(lease.id()).await?.expect("it is held");
        for record in [by_key, by_id] {
            let (key, id) = (lease.key().clone(), lease.id().clone());
            let acquired_at = record.acquired_at();
            let expected = LockRecord::new(key, id, lease.fence(), acquired_at, lease.expires_at());
            assert_eq!(record, expected, "a look shows something else");
            assert!(acquired_at < record.expires_at());
        }
    }
    Ok(())
}

async fn l1_nothing_for_what_is_unknown(store: Store) -> Result<()> {
    assert_eq!(store.one.get(&fresh_key()).await?, None);
    assert_eq!(store.one.find(&fresh_id()).await?, None);
    Ok(())
}

async fn l1_nothing_for_a_dead_lease(store: Store) -> Result<()> {
    let short = Duration::from_millis(1);
    let dead = store.take(&fresh_key(), short).await?;
    sleep(short + TOLERANCE + GRAIN).await;
    let by_key = store.one.get(dead.key()).await?;
    assert_eq!(by_key, None, "a look by key shows a dead lease");
    let by_id = store.two.find(dead.id()).await?;
    assert_eq!(by_id, None, "a look by id shows a dead lease");
    Ok(())
}

async fn l1_nothing_for_a_released_lease(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert!(store.one.release(&lease).await?);
    assert_eq!(store.two.get(lease.key()).await?, None);
    assert_eq!(store.two.find(lease.id()).await?, None);
    Ok(())
}

async fn l1_by_id_never_shows_the_successor(store: Store) -> Result<()> {
    let key = fresh_key();
    let stale = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    assert_eq!(store.two.find(stale.id()).await?, None, "a stale id shows a lease");
    let record = store.two.find(successor.id()).await?.expect("it is held");
    assert_eq!(record.id(), successor.id());
    Ok(())
}

async fn l1_an_extension_shows_at_once(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let before = store.one.get(lease.key()).await?.expect("it is held");
    let extended = store.one.extend(&lease, ttl(LONG * 2)).await?;
    let after = store.two.get(lease.key()).await?.expect("it is held");
    assert_eq!(after.expires_at(), extended.expect("it lives").expires_at());
    assert_eq!(after.acquired_at(), before.acquired_at(), "a new grant");
    Ok(())
}

async fn l1_ten_looks_at_once_agree(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let looks = race(10, |turn| {
        let (client, lease) = (store.client(turn), lease.clone());
        async move {
            if turn < 5 { client.get(lease.key()).await } else { client.find(lease.id()).await }
        }
    });
    let first = store.one.get(lease.key()).await?;
    for look in looks.await {
        assert_eq!(look?, first);
    }
    Ok(())
}

async fn l2_looks_at_a_live_lease_change_nothing(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let first = store.one.get(lease.key()).await?;
    for turn in 0..5 {
        // A renewal would show as soon as the clock has moved on.
        sleep(PAUSE).await;
        let client = store.client(turn);
        assert_eq!(client.find(lease.id()).await?, first, "a look changed it");
        assert_eq!(client.get(lease.key()).await?, first, "a look changed it");
    }
    assert!(store.one.release(&lease).await?);
    Ok(())
}

async fn l2_looks_at_a_free_key_leave_it_free(store: Store) -> Result<()> {
    let key = fresh_key();
    for turn in 0..3 {
        assert_eq!(store.client(turn).get(&key).await?, None);
    }
    store.take(&key, LONG).await?;
    Ok(())
}

async fn l2_looks_at_a_dead_lease_leave_the_fence_counter(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut last = store.take_and_let_die(&key).await?;
    for _ in 0..2 {
        for turn in 0..3 {
            assert_eq!(store.client(turn).get(&key).await?, None);
            assert_eq!(store.client(turn).find(last.id()).await?, None);
        }
        let next = store.take_and_let_die(&key).await?;
        assert!(next.fence() > last.fence(), "a look reset the fence");
        last = next;
    }
    Ok(())
}

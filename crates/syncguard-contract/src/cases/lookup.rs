//! L: what a lookup shows, and that it changes nothing.

use std::time::Duration;

use syncguard_core::{Backend, LockRecord, Result, TOLERANCE};
use tokio::time::sleep;

use crate::expect::{EXTENDED, RECORD, assert_no_record, assert_released, assert_rises};
use crate::store::{GRAIN, LONG, PAUSE, Store, fresh_id, fresh_key, race, ttl};

cases![
    l1_lookups_by_key_and_by_id_show_the_lease,
    l1_no_record_of_an_unknown_key_or_id,
    l1_no_record_of_a_dead_lease,
    l1_no_record_of_a_released_lease,
    l1_by_id_never_shows_the_successor,
    l1_an_extension_shows_at_once,
    l1_ten_concurrent_lookups_agree,
    l2_lookups_of_a_live_lease_change_nothing,
    l2_lookups_of_a_free_key_leave_it_free,
    l2_lookups_of_a_dead_lease_keep_the_fence_counter,
];

async fn l1_lookups_by_key_and_by_id_show_the_lease(store: Store) -> Result<()> {
    for _ in 0..3 {
        let lease = store.take(&fresh_key(), LONG).await?;
        let by_key = store.two.get(lease.key()).await?.expect(RECORD);
        let by_id = store.two.find(lease.id()).await?.expect(RECORD);
        for record in [by_key, by_id] {
            let (key, id) = (lease.key().clone(), lease.id().clone());
            let acquired_at = record.acquired_at();
            let expected = LockRecord::new(key, id, lease.fence(), acquired_at, lease.expires_at());
            assert_eq!(record, expected, "expected the record of the lease");
            check!(acquired_at, <, record.expires_at());
        }
    }
    Ok(())
}

async fn l1_no_record_of_an_unknown_key_or_id(store: Store) -> Result<()> {
    assert_no_record(store.one.get(&fresh_key()).await?);
    assert_no_record(store.one.find(&fresh_id()).await?);
    Ok(())
}

async fn l1_no_record_of_a_dead_lease(store: Store) -> Result<()> {
    let short = Duration::from_millis(1);
    let dead = store.take(&fresh_key(), short).await?;
    sleep(short + TOLERANCE + GRAIN).await;
    let by_key = store.one.get(dead.key()).await?;
    assert_eq!(by_key, None, "expected no record of a dead lease by key");
    let by_id = store.two.find(dead.id()).await?;
    assert_eq!(by_id, None, "expected no record of a dead lease by id");
    Ok(())
}

async fn l1_no_record_of_a_released_lease(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert_released(store.one.release(&lease).await?);
    assert_no_record(store.two.get(lease.key()).await?);
    assert_no_record(store.two.find(lease.id()).await?);
    Ok(())
}

async fn l1_by_id_never_shows_the_successor(store: Store) -> Result<()> {
    let key = fresh_key();
    let stale = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    assert_eq!(store.two.find(stale.id()).await?, None, "expected no record by a stale id");
    let record = store.two.find(successor.id()).await?.expect(RECORD);
    assert_eq!(record.id(), successor.id());
    Ok(())
}

async fn l1_an_extension_shows_at_once(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let before = store.one.get(lease.key()).await?.expect(RECORD);
    let extended = store.one.extend(&lease, ttl(LONG * 2)).await?;
    let after = store.two.get(lease.key()).await?.expect(RECORD);
    assert_eq!(after.expires_at(), extended.expect(EXTENDED).expires_at());
    assert_eq!(
        after.acquired_at(),
        before.acquired_at(),
        "expected an extension to keep `acquired_at`"
    );
    Ok(())
}

async fn l1_ten_concurrent_lookups_agree(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let lookups = race(10, |index| {
        let (client, lease) = (store.client(index), lease.clone());
        async move {
            if index < 5 { client.get(lease.key()).await } else { client.find(lease.id()).await }
        }
    });
    let first = store.one.get(lease.key()).await?;
    for lookup in lookups.await {
        assert_eq!(lookup?, first);
    }
    Ok(())
}

async fn l2_lookups_of_a_live_lease_change_nothing(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let first = store.one.get(lease.key()).await?;
    for index in 0..5 {
        // A renewal becomes visible only after the clock has moved.
        sleep(PAUSE).await;
        let client = store.client(index);
        assert_eq!(client.find(lease.id()).await?, first, "expected a lookup to change nothing");
        assert_eq!(client.get(lease.key()).await?, first, "expected a lookup to change nothing");
    }
    assert_released(store.one.release(&lease).await?);
    Ok(())
}

async fn l2_lookups_of_a_free_key_leave_it_free(store: Store) -> Result<()> {
    let key = fresh_key();
    for index in 0..3 {
        assert_no_record(store.client(index).get(&key).await?);
    }
    store.take(&key, LONG).await?;
    Ok(())
}

async fn l2_lookups_of_a_dead_lease_keep_the_fence_counter(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut last = store.take_and_let_die(&key).await?;
    for _ in 0..2 {
        for index in 0..3 {
            assert_no_record(store.client(index).get(&key).await?);
            assert_no_record(store.client(index).find(last.id()).await?);
        }
        let next = store.take_and_let_die(&key).await?;
        assert_rises(last.fence(), next.fence());
        last = next;
    }
    Ok(())
}

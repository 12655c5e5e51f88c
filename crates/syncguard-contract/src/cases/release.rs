//! R: which caller can release or extend a lease, and what that changes.

use std::time::Duration;

use syncguard_core::{Backend, Key, Lease, Result, TOLERANCE};
use tokio::time::{Instant, sleep};

use crate::expect::{
    EXTENDED, RECORD, assert_extended, assert_no_record, assert_not_extended, assert_not_released,
    assert_released,
};
use crate::store::{LONG, Store, fresh_id, fresh_key, race, ttl};

cases![
    r1_a_stale_release_leaves_the_successor_alone,
    r1_a_stale_extend_leaves_the_successor_alone,
    r1_a_foreign_id_neither_releases_nor_extends,
    r1_a_lease_from_before_an_extension_still_counts,
    r1_a_lease_without_its_revision_still_counts,
    r2_true_once_then_false,
    r2_true_exactly_once_of_ten,
    r2_a_released_key_is_free_in_every_view,
    r2_false_for_an_unknown_id,
    r2_false_for_a_dead_lease,
    r3_extend_replaces_the_ttl,
    r3_extend_outlives_the_first_ttl,
    r3_extend_can_shorten,
    r3_extend_keeps_the_fence,
    r3_extend_never_revives_a_dead_lease,
    r3_extend_never_revives_a_released_lease,
    r3_extends_that_race_a_release_leave_the_key_free,
    r4_the_id_alone_extends_and_releases,
    r5_fences_rise_whatever_ends_a_lease,
    r5_a_lookup_of_a_lease_that_is_long_dead_keeps_the_fence_counter,
];

/// A dead lease, and the next lease of the same key.
async fn stale_and_successor(store: &Store, key: &Key) -> Result<(Lease, Lease)> {
    let stale = store.take_and_let_die(key).await?;
    Ok((stale, store.take(key, LONG).await?))
}

async fn r1_a_stale_release_leaves_the_successor_alone(store: Store) -> Result<()> {
    let key = fresh_key();
    let (stale, successor) = stale_and_successor(&store, &key).await?;
    let before = store.one.get(&key).await?;
    assert!(
        !store.one.release(&stale).await?,
        "expected release of a stale lease to return false, but it returned true"
    );
    assert!(
        !store.one.release_by_id(stale.id()).await?,
        "expected release by a stale id to return false, but it returned true"
    );
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the successor's lease");
    assert!(
        store.two.release(&successor).await?,
        "expected the successor's release to return true, but its lease was gone"
    );
    Ok(())
}

async fn r1_a_stale_extend_leaves_the_successor_alone(store: Store) -> Result<()> {
    let key = fresh_key();
    let (stale, successor) = stale_and_successor(&store, &key).await?;
    let before = store.one.get(&key).await?;
    let longer = ttl(LONG * 2);
    let extended = store.one.extend(&stale, longer).await?;
    assert_eq!(extended, None, "expected no extension of a stale lease");
    let extended = store.one.extend_by_id(stale.id(), longer).await?;
    assert_eq!(extended, None, "expected no extension by a stale id");
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the successor's lease");
    assert!(
        store.two.release(&successor).await?,
        "expected the successor's release to return true, but its lease was gone"
    );
    Ok(())
}

async fn r1_a_foreign_id_neither_releases_nor_extends(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let before = store.one.get(&key).await?;
    let foreign = Lease::new(key.clone(), fresh_id(), lease.fence(), lease.expires_at());
    let releases = race(3, |index| {
        let (client, foreign) = (store.client(index), foreign.clone());
        async move { client.release(&foreign).await }
    });
    for released in releases.await {
        assert!(!released?, "expected a foreign id to release nothing, but it released the key");
    }
    let extended = store.one.extend(&foreign, ttl(LONG * 2)).await?;
    assert_eq!(extended, None, "expected a foreign id to extend nothing");
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the lease");
    assert_released(store.one.release(&lease).await?);
    Ok(())
}

/// A copy of the lease from before an extension still works: only the id counts, whatever else a
/// backend keeps in a lease.
async fn r1_a_lease_from_before_an_extension_still_counts(store: Store) -> Result<()> {
    let key = fresh_key();
    let first = store.take(&key, LONG).await?;
    let second = store.two.extend(&first, ttl(LONG * 2)).await?;
    assert_extended(second);
    let third = store.one.extend(&first, ttl(LONG * 3)).await?;
    assert!(third.is_some(), "expected an earlier copy of the lease to extend it, but got None");
    assert!(
        store.two.release(&first).await?,
        "expected the first copy of the lease to release it, but release returned false"
    );
    assert_no_record(store.one.get(&key).await?);
    Ok(())
}

async fn r1_a_lease_without_its_revision_still_counts(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let (key, id) = (lease.key().clone(), lease.id().clone());
    let bare = Lease::new(key, id, lease.fence(), lease.expires_at());
    assert_extended(store.two.extend(&bare, ttl(LONG)).await?);
    assert_released(store.two.release(&bare).await?);
    Ok(())
}

async fn r2_true_once_then_false(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert!(
        store.one.release(&lease).await?,
        "expected release of a live lease to return true, but it returned false"
    );
    for index in 0..3 {
        let client = store.client(index);
        assert!(
            !client.release(&lease).await?,
            "expected the second release to return false, but it returned true"
        );
        assert!(
            !client.release_by_id(lease.id()).await?,
            "expected the second release to return false, but it returned true"
        );
    }
    Ok(())
}

async fn r2_true_exactly_once_of_ten(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let releases = race(10, |index| {
        let (client, lease) = (store.client(index), lease.clone());
        async move {
            if index < 5 {
                client.release(&lease).await
            } else {
                client.release_by_id(lease.id()).await
            }
        }
    });
    let outcomes = releases.await.into_iter().collect::<Result<Vec<_>>>()?;
    let released = outcomes.into_iter().filter(|released| *released).count();
    assert_eq!(released, 1, "expected exactly one release of ten to return true");
    Ok(())
}

async fn r2_a_released_key_is_free_in_every_view(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    assert_released(store.two.release(&lease).await?);
    for client in [&store.one, &store.two] {
        assert_no_record(client.get(&key).await?);
        assert_no_record(client.find(lease.id()).await?);
    }
    store.assert_free(&key).await?;
    Ok(())
}

async fn r2_false_for_an_unknown_id(store: Store) -> Result<()> {
    let id = fresh_id();
    assert_not_released(store.one.release_by_id(&id).await?);
    assert_not_extended(store.one.extend_by_id(&id, ttl(LONG)).await?);
    Ok(())
}

async fn r2_false_for_a_dead_lease(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    assert!(
        !store.one.release(&dead).await?,
        "expected release of a dead lease to return false, but it returned true"
    );
    assert_not_released(store.two.release_by_id(dead.id()).await?);
    Ok(())
}

async fn r3_extend_replaces_the_ttl(store: Store) -> Result<()> {
    let sent = Instant::now();
    let first = store.take(&fresh_key(), LONG).await?;
    let extended = store.two.extend(&first, ttl(LONG * 2)).await?;
    let second = extended.expect(EXTENDED);
    let gained = second.expires_at().since(first.expires_at());
    assert!(
        gained >= LONG,
        "expected the TTL to count from now, but the expiry moved by {gained:?} only"
    );
    // If the expiry moved by another TTL, the TTL was added.
    let most = LONG + sent.elapsed() + Duration::from_secs(1);
    assert!(
        gained < most,
        "expected extend to replace the TTL, but it added to it: the expiry moved by {gained:?}"
    );
    let record = store.one.find(first.id()).await?.expect(RECORD);
    assert_eq!(record.expires_at(), second.expires_at());
    Ok(())
}

async fn r3_extend_outlives_the_first_ttl(store: Store) -> Result<()> {
    let first_ttl = Duration::from_millis(500);
    let lease = loop {
        let sent = Instant::now();
        let lease = store.take(&fresh_key(), first_ttl).await?;
        if let Some(extended) = store.one.extend(&lease, ttl(LONG)).await? {
            break extended;
        }
        // On a machine so slow that the TTL passed, try again.
        assert!(
            sent.elapsed() >= first_ttl,
            "expected the live lease to be extended, but got None"
        );
    };
    sleep(first_ttl + TOLERANCE).await;
    store.assert_held(lease.key()).await?;
    assert_released(store.two.release(&lease).await?);
    Ok(())
}

async fn r3_extend_can_shorten(store: Store) -> Result<()> {
    let key = fresh_key();
    let first = store.take(&key, LONG).await?;
    let soon = ttl(Duration::from_millis(1));
    let extended = store.one.extend(&first, soon).await?;
    let second = extended.expect(EXTENDED);
    check!(second.expires_at(), <, first.expires_at());
    store.until_free(&key).await?;
    assert_not_released(store.one.release(&first).await?);
    Ok(())
}

async fn r3_extend_keeps_the_fence(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    for index in 0..3 {
        let extended = store.client(index).extend(&lease, ttl(LONG)).await?;
        let extended = extended.expect(EXTENDED);
        assert_eq!(
            extended.fence(),
            lease.fence(),
            "expected extend to keep the fence of the lease"
        );
        let record = store.one.get(&key).await?.expect(RECORD);
        assert_eq!(record.fence(), lease.fence(), "expected extend to keep the stored fence");
        assert_eq!((record.id(), extended.id()), (lease.id(), lease.id()));
    }
    Ok(())
}

async fn r3_extend_never_revives_a_dead_lease(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    assert_revives_nothing(&store, &dead).await
}

async fn r3_extend_never_revives_a_released_lease(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert_released(store.two.release(&lease).await?);
    assert_revives_nothing(&store, &lease).await
}

async fn assert_revives_nothing(store: &Store, over: &Lease) -> Result<()> {
    let by_lease = store.one.extend(over, ttl(LONG)).await?;
    assert_eq!(by_lease, None, "expected no extension of an ended lease");
    let by_id = store.one.extend_by_id(over.id(), ttl(LONG)).await?;
    assert_eq!(by_id, None, "expected no extension by id of an ended lease");
    assert_no_record(store.two.get(over.key()).await?);
    store.assert_free(over.key()).await?;
    Ok(())
}

async fn r3_extends_that_race_a_release_leave_the_key_free(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let racers = race(10, |index| {
        let (client, lease) = (store.client(index), lease.clone());
        async move {
            if index == 5 {
                return client.release(&lease).await;
            }
            client.extend(&lease, ttl(LONG)).await?;
            Ok(false)
        }
    });
    let outcomes = racers.await.into_iter().collect::<Result<Vec<_>>>()?;
    assert!(outcomes.contains(&true), "expected one release to return true, but it returned false");
    assert_eq!(store.one.get(&key).await?, None, "expected no lease after the release");
    assert_not_released(store.two.release(&lease).await?);
    Ok(())
}

async fn r4_the_id_alone_extends_and_releases(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let extended = store.two.extend_by_id(lease.id(), ttl(LONG * 2)).await?;
    let extended = extended.expect(EXTENDED);
    assert_eq!((extended.key(), extended.id()), (&key, lease.id()));
    assert_eq!(extended.fence(), lease.fence());
    let gained = extended.expires_at().since(lease.expires_at());
    assert!(
        gained >= LONG,
        "expected the TTL to count from now, but the expiry moved by {gained:?} only"
    );
    let record = store.one.get(&key).await?.expect(RECORD);
    assert_eq!(record.expires_at(), extended.expires_at());
    assert_released(store.two.release_by_id(lease.id()).await?);
    assert_no_record(store.one.get(&key).await?);
    Ok(())
}

async fn r5_fences_rise_whatever_ends_a_lease(store: Store) -> Result<()> {
    let (key, mut fences) = (fresh_key(), Vec::new());
    for _ in 0..3 {
        let released = store.take(&key, LONG).await?;
        store.two.extend(&released, ttl(LONG)).await?;
        // The second release finds nothing.
        for _ in 0..2 {
            store.two.release(&released).await?;
        }
        let released_by_id = store.take(&key, LONG).await?;
        store.two.release_by_id(released_by_id.id()).await?;
        let dead = store.take_and_let_die(&key).await?;
        store.two.extend(&dead, ttl(LONG)).await?;
        store.two.release(&dead).await?;
        fences.extend([released, released_by_id, dead].map(|lease| lease.fence()));
    }
    let all_rise = fences.is_sorted_by(|earlier, later| earlier < later);
    assert!(all_rise, "expected a higher fence for each grant, but got {fences:?}");
    Ok(())
}

/// A backend may remove a lease that has been dead for 2 s (L2).
async fn r5_a_lookup_of_a_lease_that_is_long_dead_keeps_the_fence_counter(
    store: Store,
) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    sleep(Duration::from_millis(2_100)).await;
    assert_eq!(store.one.get(&key).await?, None);
    assert_eq!(store.two.find(dead.id()).await?, None);
    let (dead, next) = (dead.fence(), store.take(&key, LONG).await?.fence());
    assert!(next > dead, "expected a fence above {dead}, but got {next}");
    Ok(())
}

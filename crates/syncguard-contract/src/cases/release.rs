//! R: who can end or prolong a lease, and what it does.

use std::time::Duration;

use syncguard_core::{Backend, Key, Lease, Result, TOLERANCE};
use tokio::time::{Instant, sleep};

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
];

/// A lease that died, and the one that follows it on the same key.
async fn stale_and_successor(store: &Store, key: &Key) -> Result<(Lease, Lease)> {
    let stale = store.take_and_let_die(key).await?;
    Ok((stale, store.take(key, LONG).await?))
}

async fn r1_a_stale_release_leaves_the_successor_alone(store: Store) -> Result<()> {
    let key = fresh_key();
    let (stale, successor) = stale_and_successor(&store, &key).await?;
    let before = store.one.get(&key).await?;
    assert!(!store.one.release(&stale).await?, "a stale holder released the key");
    assert!(!store.one.release_by_id(stale.id()).await?, "a stale id released the key");
    assert_eq!(store.two.get(&key).await?, before, "the successor changed");
    assert!(store.two.release(&successor).await?, "the successor lost");
    Ok(())
}

async fn r1_a_stale_extend_leaves_the_successor_alone(store: Store) -> Result<()> {
    let key = fresh_key();
    let (stale, successor) = stale_and_successor(&store, &key).await?;
    let before = store.one.get(&key).await?;
    let longer = ttl(LONG * 2);
    let extended = store.one.extend(&stale, longer).await?;
    assert_eq!(extended, None, "a stale holder extended the key");
    let extended = store.one.extend_by_id(stale.id(), longer).await?;
    assert_eq!(extended, None, "a stale id extended the key");
    assert_eq!(store.two.get(&key).await?, before, "the successor changed");
    assert!(store.two.release(&successor).await?, "the successor lost");
    Ok(())
}

async fn r1_a_foreign_id_neither_releases_nor_extends(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let before = store.one.get(&key).await?;
    let foreign = Lease::new(key.clone(), fresh_id(), lease.fence(), lease.expires_at());
    let releases = race(3, |turn| {
        let (client, foreign) = (store.client(turn), foreign.clone());
        async move { client.release(&foreign).await }
    });
    for released in releases.await {
        assert!(!released?, "a foreign id released the key");
    }
    let extended = store.one.extend(&foreign, ttl(LONG * 2)).await?;
    assert_eq!(extended, None, "a foreign id extended the key");
    assert_eq!(store.two.get(&key).await?, before, "the lease changed");
    assert!(store.one.release(&lease).await?);
    Ok(())
}

/// Whoever holds a copy of the lease as it first was can go on with it: the id counts, whatever
/// else a backend remembers in a lease.
async fn r1_a_lease_from_before_an_extension_still_counts(store: Store) -> Result<()> {
    let key = fresh_key();
    let first = store.take(&key, LONG).await?;
    let second = store.two.extend(&first, ttl(LONG * 2)).await?;
    assert!(second.is_some());
    let third = store.one.extend(&first, ttl(LONG * 3)).await?;
    assert!(third.is_some(), "an earlier copy of the lease is refused");
    assert!(store.two.release(&first).await?, "it cannot release");
    assert_eq!(store.one.get(&key).await?, None);
    Ok(())
}

async fn r1_a_lease_without_its_revision_still_counts(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let (key, id) = (lease.key().clone(), lease.id().clone());
    let bare = Lease::new(key, id, lease.fence(), lease.expires_at());
    assert!(store.two.extend(&bare, ttl(LONG)).await?.is_some());
    assert!(store.two.release(&bare).await?);
    Ok(())
}

async fn r2_true_once_then_false(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert!(store.one.release(&lease).await?, "a live lease stayed");
    for turn in 0..3 {
        let client = store.client(turn);
        assert!(!client.release(&lease).await?, "released twice");
        assert!(!client.release_by_id(lease.id()).await?, "released twice");
    }
    Ok(())
}

async fn r2_true_exactly_once_of_ten(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let releases = race(10, |turn| {
        let (client, lease) = (store.client(turn), lease.clone());
        async move {
            if turn < 5 {
                client.release(&lease).await
            } else {
                client.release_by_id(lease.id()).await
            }
        }
    });
    let outcomes = releases.await.into_iter().collect::<Result<Vec<_>>>()?;
    let released = outcomes.into_iter().filter(|released| *released).count();
    assert_eq!(released, 1, "not exactly one release was true");
    Ok(())
}

async fn r2_a_released_key_is_free_in_every_view(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    assert!(store.two.release(&lease).await?);
    for client in [&store.one, &store.two] {
        assert_eq!(client.get(&key).await?, None);
        assert_eq!(client.find(lease.id()).await?, None);
    }
    assert!(!store.is_held(&key).await?);
    Ok(())
}

async fn r2_false_for_an_unknown_id(store: Store) -> Result<()> {
    let id = fresh_id();
    assert!(!store.one.release_by_id(&id).await?);
    assert_eq!(store.one.extend_by_id(&id, ttl(LONG)).await?, None);
    Ok(())
}

async fn r2_false_for_a_dead_lease(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    assert!(!store.one.release(&dead).await?, "a dead lease released");
    assert!(!store.two.release_by_id(dead.id()).await?);
    Ok(())
}

async fn r3_extend_replaces_the_ttl(store: Store) -> Result<()> {
    let sent = Instant::now();
    let first = store.take(&fresh_key(), LONG).await?;
    let extended = store.two.extend(&first, ttl(LONG * 2)).await?;
    let second = extended.expect("a live lease is extended");
    let gained = second.expires_at().since(first.expires_at());
    assert!(gained >= LONG, "the TTL did not count from now: {gained:?}");
    // A TTL more than the two calls took would be one that was added.
    let most = LONG + sent.elapsed() + Duration::from_secs(1);
    assert!(gained < most, "the TTL was added: {gained:?}");
    let record = store.one.find(first.id()).await?.expect("it is held");
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
        // Only a machine that took so long has an excuse, and another try.
        assert!(sent.elapsed() >= first_ttl, "a live lease was not extended");
    };
    sleep(first_ttl + TOLERANCE).await;
    assert!(store.is_held(lease.key()).await?, "it died at its old end");
    assert!(store.two.release(&lease).await?);
    Ok(())
}

async fn r3_extend_can_shorten(store: Store) -> Result<()> {
    let key = fresh_key();
    let first = store.take(&key, LONG).await?;
    let soon = ttl(Duration::from_millis(1));
    let extended = store.one.extend(&first, soon).await?;
    let second = extended.expect("a live lease is extended");
    assert!(second.expires_at() < first.expires_at());
    store.until_free(&key).await?;
    assert!(!store.one.release(&first).await?);
    Ok(())
}

async fn r3_extend_keeps_the_fence(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    for turn in 0..3 {
        let extended = store.client(turn).extend(&lease, ttl(LONG)).await?;
        let extended = extended.expect("a live lease is extended");
        assert_eq!(extended.fence(), lease.fence(), "extend changed the fence of the lease");
        let record = store.one.get(&key).await?.expect("it is held");
        assert_eq!(record.fence(), lease.fence(), "extend changed the stored fence");
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
    assert!(store.two.release(&lease).await?);
    assert_revives_nothing(&store, &lease).await
}

async fn assert_revives_nothing(store: &Store, over: &Lease) -> Result<()> {
    let by_lease = store.one.extend(over, ttl(LONG)).await?;
    assert_eq!(by_lease, None, "extend revived a lease");
    let by_id = store.one.extend_by_id(over.id(), ttl(LONG)).await?;
    assert_eq!(by_id, None, "extend by id revived a lease");
    assert_eq!(store.two.get(over.key()).await?, None);
    assert!(!store.is_held(over.key()).await?);
    Ok(())
}

async fn r3_extends_that_race_a_release_leave_the_key_free(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let racers = race(10, |turn| {
        let (client, lease) = (store.client(turn), lease.clone());
        async move {
            if turn == 5 {
                return client.release(&lease).await;
            }
            client.extend(&lease, ttl(LONG)).await?;
            Ok(false)
        }
    });
    let outcomes = racers.await.into_iter().collect::<Result<Vec<_>>>()?;
    assert!(outcomes.contains(&true), "the release was false");
    assert_eq!(store.one.get(&key).await?, None, "an extend came after");
    assert!(!store.two.release(&lease).await?);
    Ok(())
}

async fn r4_the_id_alone_extends_and_releases(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let extended = store.two.extend_by_id(lease.id(), ttl(LONG * 2)).await?;
    let extended = extended.expect("a live lease is extended");
    assert_eq!((extended.key(), extended.id()), (&key, lease.id()));
    assert_eq!(extended.fence(), lease.fence());
    let gained = extended.expires_at().since(lease.expires_at());
    assert!(gained >= LONG, "the TTL did not count from now");
    let record = store.one.get(&key).await?.expect("it is held");
    assert_eq!(record.expires_at(), extended.expires_at());
    assert!(store.two.release_by_id(lease.id()).await?);
    assert_eq!(store.one.get(&key).await?, None);
    Ok(())
}

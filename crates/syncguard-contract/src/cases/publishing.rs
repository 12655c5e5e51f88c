//! N6 and N8: what a leader publishes beside its lock, as the store keeps it.

use std::time::Duration;

use syncguard_core::{AnyBackend, Backend, Fence, Key, Lease, Publication, Result};
use tokio::time::sleep;

use crate::expect::{
    EXTENDED, RECORD, assert_no_record, assert_not_released, assert_released, assert_rises,
};
use crate::store::{LONG, PAUSE, Store, fresh_id, fresh_key, key, race, ttl, until};

cases![
    n6_what_is_published_is_read_as_it_was_written needs Publishing,
    n6_a_publication_of_the_same_or_a_higher_fence_replaces_it needs Publishing,
    n6_a_lower_fence_changes_nothing needs Publishing,
    n6_the_highest_fence_of_ten_racers_stays needs Publishing,
    n6_publishing_leaves_the_lock_alone needs Publishing,
    n8_a_publication_expires needs Publishing,
    n8_publishing_again_sets_the_expiry needs Publishing,
    n8_a_leader_withdraws_its_publication needs Publishing,
    n8_a_withdrawal_leaves_a_higher_fence_alone needs Publishing,
    n8_each_key_has_a_publication_of_its_own needs Publishing,
    n8_no_lock_key_names_a_publication needs Publishing,
];

/// A publication with the fence of a lease.
fn of(lease: &Lease, value: &str) -> Publication {
    publication(lease.fence(), "node", value)
}

fn publication(fence: Fence, candidate: &str, value: impl Into<Vec<u8>>) -> Publication {
    Publication::new(fence, candidate, value).expect("the suite publishes legal values")
}

/// Publishes what must be stored.
async fn publish(
    client: &AnyBackend,
    lease: &Lease,
    publication: &Publication,
    duration: Duration,
) -> Result<()> {
    let stored = client.publish(lease, publication, ttl(duration)).await?;
    assert!(stored, "expected the publication to be stored, but publish returned false");
    Ok(())
}

async fn assert_published(client: &AnyBackend, key: &Key, expected: &Publication) -> Result<()> {
    let published = client.published(key).await?;
    assert_eq!(published.as_ref(), Some(expected), "expected what was published");
    Ok(())
}

/// Waits until nothing is published for a key. The time limit of the case bounds the wait.
async fn until_withdrawn(store: &Store, key: &Key) -> Result<()> {
    until(async || Ok(store.two.published(key).await?.is_none())).await
}

/// Waits until a publication with a TTL of 1 ms has expired.
async fn until_a_short_ttl_is_over(store: &Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    publish(&store.one, &lease, &of(&lease, "short"), Duration::from_millis(1)).await?;
    until_withdrawn(store, lease.key()).await
}

/// Two leases of one key. The second is live.
async fn two_terms(store: &Store) -> Result<(Lease, Lease)> {
    let key = fresh_key();
    let earlier = store.take(&key, LONG).await?;
    assert_released(store.one.release(&earlier).await?);
    let later = store.take(&key, LONG).await?;
    assert_rises(earlier.fence(), later.fence());
    Ok((earlier, later))
}

async fn n6_what_is_published_is_read_as_it_was_written(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    assert_eq!(store.two.published(lease.key()).await?, None, "expected nothing before");
    let longest = (
        "\u{e9}".repeat(Publication::MAX_CANDIDATE_LEN / 2),
        (0..=u8::MAX).cycle().take(Publication::MAX_VALUE_LEN).collect::<Vec<_>>(),
    );
    let all_bytes = (0..=u8::MAX).collect::<Vec<_>>();
    for (candidate, value) in [
        ("node", b"10.0.0.3:8080".to_vec()),
        ("", Vec::new()),
        ("", vec![0]),
        (" '\"\\$1{key}\n\u{1f512}", all_bytes),
        (longest.0.as_str(), longest.1),
        ("000000000000001", b"\xff\xfe".to_vec()),
    ] {
        let publication = publication(lease.fence(), candidate, value);
        publish(&store.one, &lease, &publication, LONG).await?;
        assert_published(&store.two, lease.key(), &publication).await?;
    }
    Ok(())
}

async fn n6_a_publication_of_the_same_or_a_higher_fence_replaces_it(store: Store) -> Result<()> {
    let (earlier, later) = two_terms(&store).await?;
    for (lease, value) in [(&earlier, "1"), (&earlier, "2"), (&later, "3"), (&later, "4")] {
        let publication = of(lease, value);
        publish(&store.one, lease, &publication, LONG).await?;
        assert_published(&store.two, lease.key(), &publication).await?;
    }
    Ok(())
}

async fn n6_a_lower_fence_changes_nothing(store: Store) -> Result<()> {
    let (earlier, later) = two_terms(&store).await?;
    let newest = of(&later, "newest");
    publish(&store.one, &later, &newest, LONG).await?;
    for client in [&store.one, &store.two] {
        let stale = of(&earlier, "stale");
        let stored = client.publish(&earlier, &stale, ttl(Duration::from_millis(1))).await?;
        assert!(!stored, "expected a lower fence to be refused, but publish returned true");
        assert_published(&store.two, later.key(), &newest).await?;
    }
    // The refused publications did not shorten the TTL either.
    until_a_short_ttl_is_over(&store).await?;
    assert_published(&store.two, later.key(), &newest).await
}

/// The comparison and the write are one step: whoever comes last, no lower fence replaces a higher one.
async fn n6_the_highest_fence_of_ten_racers_stays(store: Store) -> Result<()> {
    for _ in 0..3 {
        let lease = store.take(&fresh_key(), LONG).await?;
        // The highest is neither the first nor the last of them.
        let fences = (0..10).map(|n| Fence::new(lease.fence().get() + (n + 5) % 10));
        let fences = fences.collect::<Result<Vec<_>, _>>()?;
        let outcomes = race(fences.len(), |index| {
            let (client, lease, fence) = (store.client(index), lease.clone(), fences[index]);
            async move {
                let publication = publication(fence, "racer", fence.to_string());
                // Some stores refuse a write when others are at work on the same record.
                loop {
                    match client.publish(&lease, &publication, ttl(LONG)).await {
                        Err(error) if error.is_transient() => sleep(PAUSE).await,
                        outcome => return outcome.map(|stored| (fence, stored)),
                    }
                }
            }
        });
        let highest = fences[4];
        for outcome in outcomes.await {
            let (fence, stored) = outcome?;
            assert!(stored || fence < highest, "expected the highest fence to be stored");
        }
        let newest = publication(highest, "racer", highest.to_string());
        assert_published(&store.two, lease.key(), &newest).await?;
    }
    Ok(())
}

async fn n6_publishing_leaves_the_lock_alone(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let key = lease.key();
    let before = store.two.get(key).await?.expect(RECORD);
    publish(&store.one, &lease, &of(&lease, "value"), LONG * 2).await?;
    let after = store.two.get(key).await?.expect(RECORD);
    assert_eq!(after, before, "expected publishing to leave the lock record alone");
    store.two.withdraw(&lease).await?;
    let after = store.two.get(key).await?.expect(RECORD);
    assert_eq!(after, before, "expected a withdrawal to leave the lock record alone");
    publish(&store.one, &lease, &of(&lease, "value"), LONG * 2).await?;
    store.assert_held(key).await?;
    let lease = store.one.extend(&lease, ttl(LONG)).await?.expect(EXTENDED);
    assert_released(store.one.release(&lease).await?);
    // A publication of an ended lease holds no key and revives no lease.
    publish(&store.one, &lease, &of(&lease, "late"), LONG).await?;
    assert_no_record(store.two.get(key).await?);
    assert_not_released(store.one.release(&lease).await?);
    let next = store.take(key, LONG).await?;
    assert_rises(lease.fence(), next.fence());
    Ok(())
}

async fn n8_a_publication_expires(store: Store) -> Result<()> {
    let (earlier, later) = two_terms(&store).await?;
    publish(&store.one, &later, &of(&later, "value"), Duration::from_millis(1)).await?;
    until_withdrawn(&store, later.key()).await?;
    // What has expired refuses nothing.
    let publication = of(&earlier, "another");
    publish(&store.one, &earlier, &publication, LONG).await?;
    assert_published(&store.two, later.key(), &publication).await
}

async fn n8_publishing_again_sets_the_expiry(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let publication = of(&lease, "value");
    publish(&store.one, &lease, &publication, Duration::from_millis(1)).await?;
    publish(&store.one, &lease, &publication, LONG).await?;
    until_a_short_ttl_is_over(&store).await?;
    assert_published(&store.two, lease.key(), &publication).await?;
    publish(&store.one, &lease, &publication, Duration::from_millis(1)).await?;
    until_withdrawn(&store, lease.key()).await
}

async fn n8_a_leader_withdraws_its_publication(store: Store) -> Result<()> {
    let (earlier, later) = two_terms(&store).await?;
    store.one.withdraw(&later).await?;
    // The fence of the publication is that of the lease, or lower.
    for published in [&later, &earlier] {
        publish(&store.one, published, &of(published, "value"), LONG).await?;
        store.two.withdraw(&later).await?;
        let left = store.one.published(later.key()).await?;
        assert_eq!(left, None, "expected nothing after the withdrawal");
        store.two.withdraw(&later).await?;
    }
    publish(&store.one, &earlier, &of(&earlier, "value"), LONG).await?;
    assert_published(&store.two, later.key(), &of(&earlier, "value")).await
}

async fn n8_a_withdrawal_leaves_a_higher_fence_alone(store: Store) -> Result<()> {
    let (earlier, later) = two_terms(&store).await?;
    let newest = of(&later, "newest");
    publish(&store.one, &later, &newest, LONG).await?;
    for client in [&store.one, &store.two] {
        client.withdraw(&earlier).await?;
        assert_published(&store.two, later.key(), &newest).await?;
    }
    Ok(())
}

async fn n8_each_key_has_a_publication_of_its_own(store: Store) -> Result<()> {
    let long = "x".repeat(Key::MAX_LEN - 64);
    let unique = fresh_id();
    let texts = ["", "/", "//a", "\u{e9}", &long, &format!("{long}y"), ":leader", "leader:"];
    let mut leases = Vec::new();
    for text in texts {
        leases.push(store.take(&key(&format!("{}{text}", unique.as_str())), LONG).await?);
    }
    for (lease, text) in leases.iter().zip(texts) {
        publish(&store.one, lease, &of(lease, text), LONG).await?;
    }
    for (lease, text) in leases.iter().zip(texts) {
        assert_published(&store.two, lease.key(), &of(lease, text)).await?;
        store.one.withdraw(lease).await?;
    }
    for lease in &leases {
        assert_eq!(store.two.published(lease.key()).await?, None, "expected nothing any more");
    }
    Ok(())
}

/// Locks whose keys resemble names of publications are free, and leave the publication alone.
async fn n8_no_lock_key_names_a_publication(store: Store) -> Result<()> {
    let lease = store.take(&fresh_key(), LONG).await?;
    let (name, value) = (lease.key().as_str(), of(&lease, "value"));
    publish(&store.one, &lease, &value, LONG).await?;
    for prefix in ["leader", "leaders", "publication", "published", "syncguard:leader"] {
        for separator in [":", "", "/", "\u{1}"] {
            let similar = store.take(&key(&format!("{prefix}{separator}{name}")), LONG).await?;
            assert_published(&store.two, lease.key(), &value).await?;
            assert_eq!(store.two.published(similar.key()).await?, None);
            assert_released(store.one.release(&similar).await?);
        }
    }
    assert_published(&store.two, lease.key(), &value).await
}

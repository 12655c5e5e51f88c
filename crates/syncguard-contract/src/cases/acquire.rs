//! A: who gets a key, and with which fence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard_core::{Acquired, Backend, Fence, Key, Lease, Result, TOLERANCE};
use tokio::time::{Instant, sleep};

use crate::store::{GRAIN, LONG, PAUSE, Store, contend, fresh_id, fresh_key, granted, race, ttl};

cases![
    a1_one_winner_of_fifty_racers,
    a1_one_winner_of_fifty_racers_on_a_dead_key,
    a1_never_two_holders_and_ever_higher_fences,
    a1_racers_on_different_keys_all_win,
    a2_a_held_key_is_not_granted,
    a2_held_tells_how_long,
    a2_a_refused_attempt_changes_nothing,
    a2_a_released_key_is_granted_at_once,
    a2_a_dead_key_is_granted,
    a2_two_keys_are_independent,
    a3_fences_rise_across_releases,
    a3_fences_rise_across_expiry,
    a3_fences_rise_across_every_kind_of_end,
    a4_the_same_id_again_is_the_same_lease,
    a4_the_same_id_again_renews_the_ttl,
    a4_ten_repeats_at_once_are_one_lease,
    a4_a_repeat_after_its_lease_died_is_a_new_grant,
    a4_a_repeat_after_another_took_the_key_is_refused,
    a5_the_lease_tells_the_stored_expiry,
];

async fn a1_one_winner_of_fifty_racers(store: Store) -> Result<()> {
    one_winner(&store, &fresh_key()).await?;
    Ok(())
}

async fn a1_one_winner_of_fifty_racers_on_a_dead_key(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let winner = one_winner(&store, &key).await?;
    assert!(winner.fence() > dead.fence(), "the fence did not rise");
    Ok(())
}

async fn one_winner(store: &Store, key: &Key) -> Result<Lease> {
    let racers = race(50, |turn| {
        let (client, key) = (store.client(turn), key.clone());
        async move { contend(&client, &key, &fresh_id()).await }
    });
    let mut winners = Vec::new();
    for outcome in racers.await {
        if let Acquired::Granted(lease) = outcome? {
            winners.push(lease);
        }
    }
    assert_eq!(winners.len(), 1, "not one winner of fifty racers");
    let winner = winners.remove(0);
    let record = store.one.get(key).await?.expect("the winner holds it");
    assert_eq!(record.id(), winner.id(), "the winner is not the holder");
    Ok(winner)
}

async fn a1_never_two_holders_and_ever_higher_fences(store: Store) -> Result<()> {
    let key = fresh_key();
    let inside = Arc::new(AtomicBool::new(false));
    let fences = Arc::new(Mutex::new(Vec::new()));
    let workers = race(8, |turn| {
        let (client, key) = (store.client(turn), key.clone());
        let (inside, fences) = (inside.clone(), fences.clone());
        async move {
            let mut left = 5;
            while left > 0 {
                let Acquired::Granted(lease) = contend(&client, &key, &fresh_id()).await? else {
                    sleep(PAUSE).await;
                    continue;
                };
                assert!(!inside.swap(true, Ordering::SeqCst), "two holders at once");
                fences.lock().unwrap().push(lease.fence());
                tokio::task::yield_now().await;
                inside.store(false, Ordering::SeqCst);
                assert!(client.release(&lease).await?, "a holder was not one");
                left -= 1;
            }
            Ok(())
        }
    });
    workers.await.into_iter().collect::<Result<Vec<()>>>()?;
    let fences = fences.lock().unwrap();
    assert_eq!(fences.len(), 40);
    assert_rising(&fences);
    Ok(())
}

async fn a1_racers_on_different_keys_all_win(store: Store) -> Result<()> {
    let racers = race(20, |turn| {
        let client = store.client(turn);
        async move { contend(&client, &fresh_key(), &fresh_id()).await }
    });
    for outcome in racers.await {
        granted(outcome?);
    }
    Ok(())
}

async fn a2_a_held_key_is_not_granted(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    for turn in 0..4 {
        let client = store.client(turn);
        let acquired = client.acquire(&key, &fresh_id(), ttl(LONG)).await?;
        assert!(matches!(acquired, Acquired::Held { .. }), "a held key was granted");
    }
    assert!(store.two.release(&lease).await?);
    Ok(())
}

async fn a2_held_tells_how_long(store: Store) -> Result<()> {
    let (key, sent) = (fresh_key(), Instant::now());
    let lease = store.take(&key, LONG).await?;
    let acquired = store.two.acquire(&key, &fresh_id(), ttl(LONG)).await?;
    let Acquired::Held { remaining } = acquired else {
        panic!("a held key was granted");
    };
    if let Some(remaining) = remaining {
        assert!(remaining <= LONG + TOLERANCE + GRAIN, "{remaining:?} is too long");
        let passed = sent.elapsed() + GRAIN;
        assert!(remaining + passed >= LONG, "{remaining:?} is too short");
    }
    assert!(store.one.release(&lease).await?);
    Ok(())
}

async fn a2_a_refused_attempt_changes_nothing(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let before = store.one.get(&key).await?;
    let id = fresh_id();
    for _ in 0..3 {
        let acquired = store.two.acquire(&key, &id, ttl(LONG * 2)).await?;
        assert!(matches!(acquired, Acquired::Held { .. }));
    }
    assert_eq!(store.one.get(&key).await?, before, "a refused attempt showed");
    assert_eq!(store.one.find(&id).await?, None, "a refused id is found");
    Ok(())
}

async fn a2_a_released_key_is_granted_at_once(store: Store) -> Result<()> {
    let key = fresh_key();
    for turn in 0..10 {
        let client = store.client(turn);
        let lease = granted(client.acquire(&key, &fresh_id(), ttl(LONG)).await?);
        assert!(client.release(&lease).await?);
    }
    Ok(())
}

async fn a2_a_dead_key_is_granted(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take_and_let_die(&key).await?;
    let lease = granted(store.two.acquire(&key, &fresh_id(), ttl(LONG)).await?);
    let record = store.one.get(&key).await?.expect("it is held again");
    assert_eq!((record.id(), record.fence()), (lease.id(), lease.fence()));
    Ok(())
}

async fn a2_two_keys_are_independent(store: Store) -> Result<()> {
    let (one, two) = (fresh_key(), fresh_key());
    let first = store.take(&one, LONG).await?;
    let second = store.take(&two, LONG).await?;
    assert!(store.one.release(&first).await?);
    assert!(store.is_held(&two).await?, "another key's release freed it");
    assert!(store.one.release(&second).await?);
    Ok(())
}

async fn a3_fences_rise_across_releases(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut fences = Vec::new();
    for turn in 0..20 {
        let client = store.client(turn);
        let lease = granted(client.acquire(&key, &fresh_id(), ttl(LONG)).await?);
        fences.push(lease.fence());
        assert!(store.client(turn + 1).release(&lease).await?);
    }
    assert!(fences[0].get() > 0, "a fence of zero");
    assert_rising(&fences);
    Ok(())
}

async fn a3_fences_rise_across_expiry(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut fences = Vec::new();
    for _ in 0..3 {
        fences.push(store.take_and_let_die(&key).await?.fence());
    }
    fences.push(store.take(&key, LONG).await?.fence());
    assert_rising(&fences);
    Ok(())
}

/// A lease ends by release, by id, by expiry, by expiry after it was extended, by expiry with a
/// late release or a look at its remains; R5 is that none of it touches the counter.
async fn a3_fences_rise_across_every_kind_of_end(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut fences = Vec::new();
    for end in 0..6 {
        let lease = store.take(&key, LONG).await?;
        fences.push(lease.fence());
        if end == 0 {
            assert!(store.two.release(&lease).await?);
        } else if end == 1 {
            assert!(store.two.release_by_id(lease.id()).await?);
        } else {
            let soon = ttl(Duration::from_millis(1));
            assert!(store.two.extend(&lease, soon).await?.is_some());
            store.until_free(&key).await?;
        }
        match end {
            3 => assert!(!store.two.release(&lease).await?),
            4 => assert_eq!(store.two.find(lease.id()).await?, None),
            5 => assert_eq!(store.two.extend(&lease, ttl(LONG)).await?, None),
            _ => {}
        }
    }
    fences.push(store.take(&key, LONG).await?.fence());
    assert_rising(&fences);
    Ok(())
}

async fn a4_the_same_id_again_is_the_same_lease(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let first = granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    for turn in 0..3 {
        let again = store.client(turn).acquire(&key, &id, ttl(LONG)).await?;
        let Acquired::Granted(again) = again else {
            panic!("a holder was refused its own key");
        };
        assert_eq!(again.fence(), first.fence(), "a repeat is a new grant");
        assert_eq!((again.key(), again.id()), (&key, &id));
    }
    assert!(store.is_held(&key).await?);
    assert!(store.one.release(&first).await?, "the first lease is lost");
    assert!(!store.two.release_by_id(&id).await?, "it was held twice");
    Ok(())
}

async fn a4_the_same_id_again_renews_the_ttl(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let first = granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    let again = granted(store.two.acquire(&key, &id, ttl(LONG * 2)).await?);
    assert!(again.expires_at().since(first.expires_at()) >= LONG, "a repeat did not renew the TTL");
    let record = store.one.get(&key).await?.expect("it is held");
    assert_eq!(record.expires_at(), again.expires_at());
    Ok(())
}

async fn a4_ten_repeats_at_once_are_one_lease(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let repeats = race(10, |turn| {
        let (client, key, id) = (store.client(turn), key.clone(), id.clone());
        async move { contend(&client, &key, &id).await }
    });
    let mut fences = Vec::new();
    for outcome in repeats.await {
        fences.push(granted(outcome?).fence());
    }
    fences.dedup();
    assert_eq!(fences.len(), 1, "repeats got different fences: {fences:?}");
    assert!(store.one.release_by_id(&id).await?);
    Ok(())
}

async fn a4_a_repeat_after_its_lease_died_is_a_new_grant(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let again = granted(store.two.acquire(&key, dead.id(), ttl(LONG)).await?);
    assert!(again.fence() > dead.fence(), "a dead lease came back");
    let record = store.one.find(dead.id()).await?.expect("it is held");
    assert_eq!(record.fence(), again.fence());
    assert!(store.one.release(&again).await?);
    Ok(())
}

async fn a4_a_repeat_after_another_took_the_key_is_refused(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    let again = store.two.acquire(&key, dead.id(), ttl(LONG)).await?;
    assert!(matches!(again, Acquired::Held { .. }));
    let record = store.one.get(&key).await?.expect("it is held");
    assert_eq!(record.id(), successor.id());
    Ok(())
}

async fn a5_the_lease_tells_the_stored_expiry(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let record = store.two.get(&key).await?.expect("it is held");
    assert_eq!(record.expires_at(), lease.expires_at());
    assert_eq!(record.expires_at().since(record.acquired_at()), LONG);
    Ok(())
}

#[track_caller]
fn assert_rising(fences: &[Fence]) {
    assert!(
        fences.is_sorted_by(|earlier, later| earlier < later),
        "fences do not rise: {fences:?}"
    );
}

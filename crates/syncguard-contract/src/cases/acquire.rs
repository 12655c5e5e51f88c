//! A: which caller is granted a key, and with which fence.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard_core::{Acquired, Backend, Fence, Key, Lease, Result, TOLERANCE};
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_extended, assert_held, assert_released, assert_rises, granted};
use crate::store::{GRAIN, LONG, PAUSE, Store, contend, fresh_id, fresh_key, race, ttl};

cases![
    a1_one_winner_of_fifty_racers,
    a1_one_winner_of_fifty_racers_on_a_dead_key,
    a1_never_two_holders_and_ever_higher_fences,
    a1_racers_on_different_keys_all_win,
    a2_a_held_key_is_not_granted,
    a2_a_held_answer_has_the_time_left,
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
    a5_the_lease_has_the_stored_expiry,
];

async fn a1_one_winner_of_fifty_racers(store: Store) -> Result<()> {
    one_winner(&store, &fresh_key()).await?;
    Ok(())
}

async fn a1_one_winner_of_fifty_racers_on_a_dead_key(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let winner = one_winner(&store, &key).await?;
    assert_rises(dead.fence(), winner.fence());
    Ok(())
}

async fn one_winner(store: &Store, key: &Key) -> Result<Lease> {
    let racers = race(50, |index| {
        let (client, key) = (store.client(index), key.clone());
        async move { contend(&client, &key, &fresh_id()).await }
    });
    let mut winners = Vec::new();
    for outcome in racers.await {
        if let Acquired::Granted(lease) = outcome? {
            winners.push(lease);
        }
    }
    assert_eq!(winners.len(), 1, "expected one winner of fifty racers");
    let winner = winners.remove(0);
    let record = store.one.get(key).await?.expect(RECORD);
    assert_eq!(record.id(), winner.id(), "expected the winner to be the holder");
    Ok(winner)
}

async fn a1_never_two_holders_and_ever_higher_fences(store: Store) -> Result<()> {
    let key = fresh_key();
    let inside = Arc::new(AtomicBool::new(false));
    let fences = Arc::new(Mutex::new(Vec::new()));
    let workers = race(8, |index| {
        let (client, key) = (store.client(index), key.clone());
        let (inside, fences) = (inside.clone(), fences.clone());
        async move {
            let mut left = 5;
            while left > 0 {
                let Acquired::Granted(lease) = contend(&client, &key, &fresh_id()).await? else {
                    sleep(PAUSE).await;
                    continue;
                };
                assert!(
                    !inside.swap(true, Ordering::SeqCst),
                    "expected one holder at a time, but there are two"
                );
                fences.lock().unwrap().push(lease.fence());
                tokio::task::yield_now().await;
                inside.store(false, Ordering::SeqCst);
                assert!(
                    client.release(&lease).await?,
                    "expected release to return true for the holder, but it returned false"
                );
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
    let racers = race(20, |index| {
        let client = store.client(index);
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
    for index in 0..4 {
        let client = store.client(index);
        let acquired = client.acquire(&key, &fresh_id(), ttl(LONG)).await?;
        assert_held(&acquired);
    }
    assert_released(store.two.release(&lease).await?);
    Ok(())
}

async fn a2_a_held_answer_has_the_time_left(store: Store) -> Result<()> {
    let (key, sent) = (fresh_key(), Instant::now());
    let lease = store.take(&key, LONG).await?;
    let acquired = store.two.acquire(&key, &fresh_id(), ttl(LONG)).await?;
    let Acquired::Held { remaining } = acquired else {
        panic!("expected the key to be held, but it was granted");
    };
    if let Some(remaining) = remaining {
        assert!(
            remaining <= LONG + TOLERANCE + GRAIN,
            "expected at most the TTL and the tolerance, but {remaining:?} remain"
        );
        let passed = sent.elapsed() + GRAIN;
        assert!(
            remaining + passed >= LONG,
            "expected at least the rest of the TTL, but only {remaining:?} remain"
        );
    }
    assert_released(store.one.release(&lease).await?);
    Ok(())
}

async fn a2_a_refused_attempt_changes_nothing(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let before = store.one.get(&key).await?;
    let id = fresh_id();
    for _ in 0..3 {
        let acquired = store.two.acquire(&key, &id, ttl(LONG * 2)).await?;
        assert_held(&acquired);
    }
    assert_eq!(store.one.get(&key).await?, before, "expected a refused attempt to change nothing");
    assert_eq!(store.one.find(&id).await?, None, "expected no record of a refused id");
    Ok(())
}

async fn a2_a_released_key_is_granted_at_once(store: Store) -> Result<()> {
    let key = fresh_key();
    for index in 0..10 {
        let client = store.client(index);
        let lease = granted(client.acquire(&key, &fresh_id(), ttl(LONG)).await?);
        assert_released(client.release(&lease).await?);
    }
    Ok(())
}

async fn a2_a_dead_key_is_granted(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take_and_let_die(&key).await?;
    let lease = granted(store.two.acquire(&key, &fresh_id(), ttl(LONG)).await?);
    let record = store.one.get(&key).await?.expect(RECORD);
    assert_eq!((record.id(), record.fence()), (lease.id(), lease.fence()));
    Ok(())
}

async fn a2_two_keys_are_independent(store: Store) -> Result<()> {
    let (one, two) = (fresh_key(), fresh_key());
    let first = store.take(&one, LONG).await?;
    let second = store.take(&two, LONG).await?;
    assert_released(store.one.release(&first).await?);
    store.assert_held(&two).await?;
    assert_released(store.one.release(&second).await?);
    Ok(())
}

async fn a3_fences_rise_across_releases(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut fences = Vec::new();
    for index in 0..20 {
        let client = store.client(index);
        let lease = granted(client.acquire(&key, &fresh_id(), ttl(LONG)).await?);
        fences.push(lease.fence());
        assert_released(store.client(index + 1).release(&lease).await?);
    }
    assert!(fences[0].get() > 0, "expected a fence above zero, but got zero");
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

/// A lease ends by release, by release by id, or by expiry: alone, or with a late release, lookup
/// or extend. No kind of end may touch the fence counter (R5).
async fn a3_fences_rise_across_every_kind_of_end(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut fences = Vec::new();
    for end in 0..6 {
        let lease = store.take(&key, LONG).await?;
        fences.push(lease.fence());
        if end == 0 {
            assert_released(store.two.release(&lease).await?);
        } else if end == 1 {
            assert_released(store.two.release_by_id(lease.id()).await?);
        } else {
            let soon = ttl(Duration::from_millis(1));
            assert_extended(store.two.extend(&lease, soon).await?);
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
    for index in 0..3 {
        let again = store.client(index).acquire(&key, &id, ttl(LONG)).await?;
        let Acquired::Granted(again) = again else {
            panic!("expected the lease of the same id, but the key is held");
        };
        assert_eq!(again.fence(), first.fence(), "expected the fence of the first grant");
        assert_eq!((again.key(), again.id()), (&key, &id));
    }
    store.assert_held(&key).await?;
    assert!(
        store.one.release(&first).await?,
        "expected release to return true after repeats, but it returned false"
    );
    assert!(
        !store.two.release_by_id(&id).await?,
        "expected one lease for two grants of one id, but release returned true twice"
    );
    Ok(())
}

async fn a4_the_same_id_again_renews_the_ttl(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let first = granted(store.one.acquire(&key, &id, ttl(LONG)).await?);
    let again = granted(store.two.acquire(&key, &id, ttl(LONG * 2)).await?);
    assert!(
        again.expires_at().since(first.expires_at()) >= LONG,
        "expected the repeated acquire to renew the TTL, but it did not"
    );
    let record = store.one.get(&key).await?.expect(RECORD);
    assert_eq!(record.expires_at(), again.expires_at());
    Ok(())
}

async fn a4_ten_repeats_at_once_are_one_lease(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let repeats = race(10, |index| {
        let (client, key, id) = (store.client(index), key.clone(), id.clone());
        async move { contend(&client, &key, &id).await }
    });
    let mut fences = Vec::new();
    for outcome in repeats.await {
        fences.push(granted(outcome?).fence());
    }
    fences.dedup();
    assert_eq!(fences.len(), 1, "expected the same fence for all repeats, but got {fences:?}");
    assert_released(store.one.release_by_id(&id).await?);
    Ok(())
}

async fn a4_a_repeat_after_its_lease_died_is_a_new_grant(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let again = granted(store.two.acquire(&key, dead.id(), ttl(LONG)).await?);
    assert_rises(dead.fence(), again.fence());
    let record = store.one.find(dead.id()).await?.expect(RECORD);
    assert_eq!(record.fence(), again.fence());
    assert_released(store.one.release(&again).await?);
    Ok(())
}

async fn a4_a_repeat_after_another_took_the_key_is_refused(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    let again = store.two.acquire(&key, dead.id(), ttl(LONG)).await?;
    assert_held(&again);
    let record = store.one.get(&key).await?.expect(RECORD);
    assert_eq!(record.id(), successor.id());
    Ok(())
}

async fn a5_the_lease_has_the_stored_expiry(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!(record.expires_at(), lease.expires_at());
    assert_eq!(record.expires_at().since(record.acquired_at()), LONG);
    Ok(())
}

#[track_caller]
fn assert_rising(fences: &[Fence]) {
    assert!(
        fences.is_sorted_by(|earlier, later| earlier < later),
        "expected rising fences, but got {fences:?}"
    );
}

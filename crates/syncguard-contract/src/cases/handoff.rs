//! G1 to G4: one step that ends a lease and grants the next.
//!
//! Where a backend does not declare it, it is never called (G5), and nothing is asked of it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncguard_core::{Acquired, AnyBackend, Backend, Lease, LockId, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::store::{LONG, PAUSE, Store, contend, fresh_id, fresh_key, granted, race, ttl};

cases![
    g1_the_new_lease_is_the_one_asked_for needs Handoff,
    g1_the_new_lease_ends_at_its_ttl needs Handoff,
    g1_the_new_lease_is_like_any_other needs Handoff,
    g1_fences_rise_through_handoffs needs Handoff,
    g1_the_old_id_is_gone needs Handoff,
    g2_a_dead_lease_is_not_handed_off needs Handoff,
    g2_a_released_or_unknown_lease_is_not_handed_off needs Handoff,
    g2_a_replaced_lease_is_not_handed_off needs Handoff,
    g3_one_success_of_ten_racers needs Handoff,
    g3_extends_that_race_a_handoff_leave_the_new_lease needs Handoff,
    g4_nobody_comes_in_between needs Handoff,
];

/// Hands over a lease that must be live.
async fn handoff(client: &AnyBackend, lease: &Lease, duration: Duration) -> Result<Lease> {
    let id = fresh_id();
    let new = client.handoff(lease, &id, ttl(duration)).await?;
    let new = new.expect("a live lease was not handed over");
    assert_eq!(new.id(), &id, "another id than asked for");
    Ok(new)
}

async fn g1_the_new_lease_is_the_one_asked_for(store: Store) -> Result<()> {
    for duration in [LONG * 2, LONG / 2] {
        let key = fresh_key();
        let old = store.take(&key, LONG).await?;
        let before = store.two.get(&key).await?.expect("it is held");
        let new = handoff(&store.one, &old, duration).await?;
        assert_eq!(new.key(), &key);
        assert!(new.fence() > old.fence(), "the fence did not rise");
        let by_key = store.two.get(&key).await?.expect("it is held");
        let by_id = store.two.find(new.id()).await?.expect("it is found by its id");
        assert_eq!(by_key, by_id);
        assert_eq!((by_key.key(), by_key.id()), (&key, new.id()));
        assert_eq!(by_key.fence(), new.fence());
        assert_eq!(by_key.expires_at(), new.expires_at());
        assert_eq!(by_key.expires_at().since(by_key.acquired_at()), duration, "another TTL");
        assert!(by_key.acquired_at() >= before.acquired_at(), "acquired before its time");
        assert!(store.is_held(&key).await?);
    }
    Ok(())
}

async fn g1_the_new_lease_ends_at_its_ttl(store: Store) -> Result<()> {
    let key = fresh_key();
    let old = store.take(&key, LONG).await?;
    let new = handoff(&store.one, &old, Duration::from_millis(1)).await?;
    store.until_free(&key).await?;
    assert!(!store.one.release(&new).await? && !store.one.release(&old).await?);
    let next = store.take(&key, LONG).await?;
    assert!(next.fence() > new.fence(), "the fence did not rise");
    Ok(())
}

/// It can be extended and released, with the lease or by id, and an attempt under its id finds it.
async fn g1_the_new_lease_is_like_any_other(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut old = store.take(&key, LONG).await?;
    for by_id in [true, false] {
        let new = handoff(&store.one, &old, LONG).await?;
        let extended = if by_id {
            store.two.extend_by_id(new.id(), ttl(LONG * 2)).await?
        } else {
            store.two.extend(&new, ttl(LONG * 2)).await?
        };
        let extended = extended.expect("it is live");
        assert!(extended.expires_at().since(new.expires_at()) >= LONG);
        let found = granted(contend(&store.two, &key, new.id()).await?);
        assert_eq!(found.fence(), new.fence(), "a repeat is a new grant");
        old = new;
    }
    assert!(store.two.release(&old).await?);
    assert!(!store.is_held(&key).await?);
    let new = handoff(&store.two, &store.take(&fresh_key(), LONG).await?, LONG).await?;
    assert!(store.one.release_by_id(new.id()).await?);
    assert!(!store.is_held(new.key()).await?);
    Ok(())
}

async fn g1_fences_rise_through_handoffs(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut lease = store.take(&key, LONG).await?;
    for round in 0..3 {
        for turn in 0..4 {
            let new = handoff(&store.client(round + turn), &lease, LONG).await?;
            assert!(new.fence() > lease.fence(), "the fence did not rise");
            lease = new;
        }
        assert!(store.client(round).release(&lease).await?);
        let next = store.take(&key, LONG).await?;
        assert!(next.fence() > lease.fence(), "the fence did not rise");
        lease = next;
    }
    Ok(())
}

async fn g1_the_old_id_is_gone(store: Store) -> Result<()> {
    let key = fresh_key();
    let old = store.take(&key, LONG).await?;
    let new = handoff(&store.one, &old, LONG).await?;
    let before = store.two.get(&key).await?;
    for turn in 0..2 {
        let client = store.client(turn);
        assert_eq!(client.find(old.id()).await?, None, "the old id shows a lease");
        let longer = ttl(LONG * 2);
        assert_eq!(client.extend(&old, longer).await?, None, "the old id extends");
        assert_eq!(client.extend_by_id(old.id(), longer).await?, None, "the old id extends");
        assert!(!client.release(&old).await?, "the old id releases");
        assert!(!client.release_by_id(old.id()).await?, "the old id releases");
        let again = client.handoff(&old, &fresh_id(), longer).await?;
        assert_eq!(again, None, "the old id hands over");
    }
    assert_eq!(store.two.get(&key).await?, before, "the new lease changed");
    assert!(store.one.release(&new).await?);
    Ok(())
}

async fn g2_a_dead_lease_is_not_handed_off(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    stays_free(&store, &dead).await
}

async fn g2_a_released_or_unknown_lease_is_not_handed_off(store: Store) -> Result<()> {
    let released = store.take(&fresh_key(), LONG).await?;
    assert!(store.one.release(&released).await?);
    stays_free(&store, &released).await?;
    let unknown = Lease::new(fresh_key(), fresh_id(), released.fence(), released.expires_at());
    stays_free(&store, &unknown).await
}

/// A lease that has ended is not handed over, and its key is as free as before.
async fn stays_free(store: &Store, ended: &Lease) -> Result<()> {
    let id = fresh_id();
    for turn in 0..2 {
        let outcome = store.client(turn).handoff(ended, &id, ttl(LONG)).await?;
        assert_eq!(outcome, None, "a lease that had ended was handed over");
        assert_eq!(store.two.find(&id).await?, None);
        assert_eq!(store.two.get(ended.key()).await?, None);
    }
    let next = store.take(ended.key(), LONG).await?;
    assert!(store.one.release(&next).await?);
    Ok(())
}

async fn g2_a_replaced_lease_is_not_handed_off(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let stale = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    let before = store.two.get(&key).await?;
    for turn in 0..2 {
        let outcome = store.client(turn).handoff(&stale, &id, ttl(LONG)).await?;
        assert_eq!(outcome, None, "a stale holder handed the key over");
    }
    assert_eq!(store.two.find(&id).await?, None);
    assert_eq!(store.two.get(&key).await?, before, "the successor changed");
    assert!(store.two.release(&successor).await?, "the successor lost");
    Ok(())
}

/// What a racer did, if it could.
#[derive(Debug)]
enum Won {
    Nothing,
    Release,
    Handoff(LockId),
}

async fn g3_one_success_of_ten_racers(store: Store) -> Result<()> {
    for _ in 0..3 {
        let key = fresh_key();
        let lease = store.take(&key, LONG).await?;
        let racers = race(10, |turn| {
            // Half of them hand over, on either client.
            let (client, lease) = (store.client(turn / 2), lease.clone());
            async move {
                if turn % 2 == 0 {
                    let released = client.release(&lease).await?;
                    return Ok(if released { Won::Release } else { Won::Nothing });
                }
                let id = fresh_id();
                let new = client.handoff(&lease, &id, ttl(LONG)).await?;
                Ok(new.map_or(Won::Nothing, |_| Won::Handoff(id)))
            }
        });
        let outcomes = racers.await.into_iter().collect::<Result<Vec<_>>>()?;
        let mut won = outcomes.into_iter().filter(|outcome| !matches!(outcome, Won::Nothing));
        let (winner, another) = (won.next(), won.next());
        assert!(winner.is_some() && another.is_none(), "not one success: {winner:?} {another:?}");
        let record = store.two.get(&key).await?;
        match winner {
            Some(Won::Handoff(id)) => assert_eq!(record.expect("it is held").id(), &id),
            _ => assert_eq!(record, None),
        }
    }
    Ok(())
}

async fn g3_extends_that_race_a_handoff_leave_the_new_lease(store: Store) -> Result<()> {
    let key = fresh_key();
    let (lease, id) = (store.take(&key, LONG).await?, fresh_id());
    let racers = race(5, |turn| {
        let (client, lease, id) = (store.client(turn), lease.clone(), id.clone());
        async move {
            if turn == 2 {
                return client.handoff(&lease, &id, ttl(LONG * 2)).await;
            }
            client.extend(&lease, ttl(LONG)).await.map(|_| None)
        }
    });
    let outcomes = racers.await.into_iter().collect::<Result<Vec<_>>>()?;
    let new = outcomes.into_iter().flatten().next().expect("nobody else ended the old lease");
    let record = store.two.get(&key).await?.expect("it is held");
    assert_eq!((record.id(), record.fence()), (&id, new.fence()), "an extend brought it back");
    assert_eq!(record.expires_at(), new.expires_at(), "the old id extends");
    assert!(store.one.release(&new).await?);
    Ok(())
}

async fn g4_nobody_comes_in_between(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut lease = store.take(&key, LONG).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut strangers = JoinSet::new();
    for _ in 0..2 {
        let (client, key, done) = (store.two.clone(), key.clone(), done.clone());
        strangers.spawn(async move {
            let mut attempts = 0;
            while !done.load(Ordering::SeqCst) {
                let attempt = contend(&client, &key, &fresh_id()).await?;
                assert!(matches!(attempt, Acquired::Held { .. }), "somebody came in between");
                attempts += 1;
                tokio::task::yield_now().await;
            }
            Result::<usize>::Ok(attempts)
        });
    }
    for _ in 0..20 {
        let new = store.one.handoff(&lease, &fresh_id(), ttl(LONG)).await?;
        lease = new.expect("somebody came in between");
        sleep(PAUSE).await;
    }
    done.store(true, Ordering::SeqCst);
    for attempts in strangers.join_all().await {
        assert!(attempts? > 0, "nobody tried");
    }
    assert!(store.one.release(&lease).await?);
    Ok(())
}

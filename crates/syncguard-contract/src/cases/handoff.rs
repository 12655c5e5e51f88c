//! G1 to G4: one atomic step that ends a lease and grants the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncguard_core::{AnyBackend, Backend, Lease, LockId, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::expect::{
    RECORD, assert_held, assert_no_record, assert_not_released, assert_released, assert_rises,
    granted,
};
use crate::store::{LONG, PAUSE, Store, contend, fresh_id, fresh_key, race, ttl};

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
    g4_the_key_stays_held_throughout needs Handoff,
];

/// Hands off a lease that must be live.
async fn handoff(client: &AnyBackend, lease: &Lease, duration: Duration) -> Result<Lease> {
    let id = fresh_id();
    let new = client.handoff(lease, &id, ttl(duration)).await?;
    let new = new.expect("expected the live lease to be handed off, but got None");
    assert_eq!(new.id(), &id, "expected the requested id");
    Ok(new)
}

async fn g1_the_new_lease_is_the_one_asked_for(store: Store) -> Result<()> {
    for duration in [LONG * 2, LONG / 2] {
        let key = fresh_key();
        let old = store.take(&key, LONG).await?;
        let before = store.two.get(&key).await?.expect(RECORD);
        let new = handoff(&store.one, &old, duration).await?;
        assert_eq!(new.key(), &key);
        assert_rises(old.fence(), new.fence());
        let by_key = store.two.get(&key).await?.expect(RECORD);
        let by_id = store.two.find(new.id()).await?.expect("expected a record by id, but got none");
        assert_eq!(by_key, by_id);
        assert_eq!((by_key.key(), by_key.id()), (&key, new.id()));
        assert_eq!(by_key.fence(), new.fence());
        assert_eq!(by_key.expires_at(), new.expires_at());
        assert_eq!(
            by_key.expires_at().since(by_key.acquired_at()),
            duration,
            "expected the requested TTL"
        );
        assert!(
            by_key.acquired_at() >= before.acquired_at(),
            "expected `acquired_at` of the handoff, but got an earlier time"
        );
        store.assert_held(&key).await?;
    }
    Ok(())
}

async fn g1_the_new_lease_ends_at_its_ttl(store: Store) -> Result<()> {
    let key = fresh_key();
    let old = store.take(&key, LONG).await?;
    let new = handoff(&store.one, &old, Duration::from_millis(1)).await?;
    store.until_free(&key).await?;
    assert_not_released(store.one.release(&new).await?);
    assert_not_released(store.one.release(&old).await?);
    let next = store.take(&key, LONG).await?;
    assert_rises(new.fence(), next.fence());
    Ok(())
}

/// The new lease can be extended and released, also by id, and an attempt with its id finds it.
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
        let extended = extended.expect("expected a live lease, but got none");
        check!(extended.expires_at().since(new.expires_at()), >=, LONG);
        let found = granted(contend(&store.two, &key, new.id()).await?);
        assert_eq!(found.fence(), new.fence(), "expected the fence of the first grant");
        old = new;
    }
    assert_released(store.two.release(&old).await?);
    store.assert_free(&key).await?;
    let new = handoff(&store.two, &store.take(&fresh_key(), LONG).await?, LONG).await?;
    assert_released(store.one.release_by_id(new.id()).await?);
    store.assert_free(new.key()).await?;
    Ok(())
}

async fn g1_fences_rise_through_handoffs(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut lease = store.take(&key, LONG).await?;
    for round in 0..3 {
        for index in 0..4 {
            let new = handoff(&store.client(round + index), &lease, LONG).await?;
            assert_rises(lease.fence(), new.fence());
            lease = new;
        }
        assert_released(store.client(round).release(&lease).await?);
        let next = store.take(&key, LONG).await?;
        assert_rises(lease.fence(), next.fence());
        lease = next;
    }
    Ok(())
}

async fn g1_the_old_id_is_gone(store: Store) -> Result<()> {
    let key = fresh_key();
    let old = store.take(&key, LONG).await?;
    let new = handoff(&store.one, &old, LONG).await?;
    let before = store.two.get(&key).await?;
    for index in 0..2 {
        let client = store.client(index);
        assert_eq!(client.find(old.id()).await?, None, "expected no record by the old id");
        let longer = ttl(LONG * 2);
        assert_eq!(client.extend(&old, longer).await?, None, "expected no extension by the old id");
        assert_eq!(
            client.extend_by_id(old.id(), longer).await?,
            None,
            "expected no extension by the old id"
        );
        assert!(
            !client.release(&old).await?,
            "expected the old id to release nothing, but release returned true"
        );
        assert!(
            !client.release_by_id(old.id()).await?,
            "expected the old id to release nothing, but release returned true"
        );
        let again = client.handoff(&old, &fresh_id(), longer).await?;
        assert_eq!(again, None, "expected no handoff by the old id");
    }
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the new lease");
    assert_released(store.one.release(&new).await?);
    Ok(())
}

async fn g2_a_dead_lease_is_not_handed_off(store: Store) -> Result<()> {
    let key = fresh_key();
    let dead = store.take_and_let_die(&key).await?;
    stays_free(&store, &dead).await
}

async fn g2_a_released_or_unknown_lease_is_not_handed_off(store: Store) -> Result<()> {
    let released = store.take(&fresh_key(), LONG).await?;
    assert_released(store.one.release(&released).await?);
    stays_free(&store, &released).await?;
    let unknown = Lease::new(fresh_key(), fresh_id(), released.fence(), released.expires_at());
    stays_free(&store, &unknown).await
}

/// An ended lease is not handed off, and its key stays free.
async fn stays_free(store: &Store, ended: &Lease) -> Result<()> {
    let id = fresh_id();
    for index in 0..2 {
        let outcome = store.client(index).handoff(ended, &id, ttl(LONG)).await?;
        assert_eq!(outcome, None, "expected no handoff of an ended lease");
        assert_no_record(store.two.find(&id).await?);
        assert_no_record(store.two.get(ended.key()).await?);
    }
    let next = store.take(ended.key(), LONG).await?;
    assert_released(store.one.release(&next).await?);
    Ok(())
}

async fn g2_a_replaced_lease_is_not_handed_off(store: Store) -> Result<()> {
    let (key, id) = (fresh_key(), fresh_id());
    let stale = store.take_and_let_die(&key).await?;
    let successor = store.take(&key, LONG).await?;
    let before = store.two.get(&key).await?;
    for index in 0..2 {
        let outcome = store.client(index).handoff(&stale, &id, ttl(LONG)).await?;
        assert_eq!(outcome, None, "expected no handoff of a stale lease");
    }
    assert_no_record(store.two.find(&id).await?);
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the successor's lease");
    assert!(
        store.two.release(&successor).await?,
        "expected the successor's release to return true, but its lease was gone"
    );
    Ok(())
}

/// What a racer succeeded with.
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
        let racers = race(10, |index| {
            // Half of the racers hand off, on either client.
            let (client, lease) = (store.client(index / 2), lease.clone());
            async move {
                if index % 2 == 0 {
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
        assert!(
            winner.is_some() && another.is_none(),
            "expected one success of ten racers, but got {winner:?} and {another:?}"
        );
        let record = store.two.get(&key).await?;
        match winner {
            Some(Won::Handoff(id)) => assert_eq!(record.expect(RECORD).id(), &id),
            _ => assert_eq!(record, None),
        }
    }
    Ok(())
}

async fn g3_extends_that_race_a_handoff_leave_the_new_lease(store: Store) -> Result<()> {
    let key = fresh_key();
    let (lease, id) = (store.take(&key, LONG).await?, fresh_id());
    let racers = race(5, |index| {
        let (client, lease, id) = (store.client(index), lease.clone(), id.clone());
        async move {
            if index == 2 {
                return client.handoff(&lease, &id, ttl(LONG * 2)).await;
            }
            client.extend(&lease, ttl(LONG)).await.map(|_| None)
        }
    });
    let outcomes = racers.await.into_iter().collect::<Result<Vec<_>>>()?;
    let new = outcomes
        .into_iter()
        .flatten()
        .next()
        .expect("expected one handoff to succeed, but none did");
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!(
        (record.id(), record.fence()),
        (&id, new.fence()),
        "expected the lease of the handoff"
    );
    assert_eq!(record.expires_at(), new.expires_at(), "expected no extension by the old id");
    assert_released(store.one.release(&new).await?);
    Ok(())
}

async fn g4_the_key_stays_held_throughout(store: Store) -> Result<()> {
    let key = fresh_key();
    let mut lease = store.take(&key, LONG).await?;
    let done = Arc::new(AtomicBool::new(false));
    let mut rivals = JoinSet::new();
    for _ in 0..2 {
        let (client, key, done) = (store.two.clone(), key.clone(), done.clone());
        rivals.spawn(async move {
            let mut attempts = 0;
            while !done.load(Ordering::SeqCst) {
                let attempt = contend(&client, &key, &fresh_id()).await?;
                assert_held(&attempt);
                attempts += 1;
                tokio::task::yield_now().await;
            }
            Result::<usize>::Ok(attempts)
        });
    }
    for _ in 0..20 {
        let new = store.one.handoff(&lease, &fresh_id(), ttl(LONG)).await?;
        lease = new.expect(
            "expected the key to stay held during handoffs, but another caller was granted it",
        );
        sleep(PAUSE).await;
    }
    done.store(true, Ordering::SeqCst);
    for attempts in rivals.join_all().await {
        assert!(
            attempts? > 0,
            "expected at least one attempt during the handoffs, but there was none"
        );
    }
    assert_released(store.one.release(&lease).await?);
    Ok(())
}

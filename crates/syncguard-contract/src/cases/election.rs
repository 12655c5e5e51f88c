//! N1 to N5 and N7: terms of leaders, their ends, and what others see of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard::{CancellationToken, Fence, Leadership, LockManager};
use syncguard_core::{Backend, ErrorCode, Key, Operation, Result};
use syncguard_memory::Fault;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::store::{LONG, Store, fresh_key, until};

cases![
    n1_a_term_is_a_lease_with_a_higher_fence_than_the_one_before,
    n1_candidates_of_two_clients_lead_in_turn,
    n2_a_term_ends_before_it_is_lost,
    n2_the_lease_is_released_after_the_work_has_ended,
    n3_work_starts_and_stops_once_per_term,
    n4_a_resignation_outlasts_failed_requests,
    n4_shutdown_resigns,
    n5_a_term_is_not_shown_after_a_successor_has_begun,
    n5_an_observer_sees_leaders_and_vacancies,
    n5_an_observer_sees_that_a_leader_vanished,
    n7_what_a_leader_publishes_is_seen_while_it_leads needs Publishing,
];

/// Longer than a busy machine takes for a step that no timer delays.
const SOON: Duration = Duration::from_secs(10);
/// The TTL of a term that is meant to be lost.
const SHORT: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(15);

async fn n1_a_term_is_a_lease_with_a_higher_fence_than_the_one_before(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let mut earlier = None;
    for _ in 0..3 {
        let term = locks.election(&key).ttl(LONG).campaign().await?;
        let record = store.two.get(&key).await?.expect("a record of the lock");
        assert_eq!(record.fence(), term.fence(), "expected the fence of the term in the record");
        store.assert_held(&key).await?;
        assert!(
            earlier.replace(term.fence()) < Some(term.fence()),
            "expected rising fences, but {} came after {earlier:?}",
            term.fence()
        );
        check!(term.resign().await?);
        check!(term.remaining(), ==, Duration::ZERO);
    }
    Ok(())
}

async fn n1_candidates_of_two_clients_lead_in_turn(store: Store) -> Result<()> {
    let (key, terms) = (fresh_key(), Arc::new(Mutex::new(Vec::<(usize, Fence)>::new())));
    let mut candidates = JoinSet::new();
    for number in 0..4 {
        let election = LockManager::new(store.client(number)).election(&key).ttl(TTL);
        let terms = terms.clone();
        candidates.spawn(async move {
            let term = election.campaign().await?;
            terms.lock().expect("nobody panics").push((number, term.fence()));
            assert!(
                term.resign().await?,
                "expected the term of {number} to end by its resignation"
            );
            Ok::<_, syncguard_core::Error>(())
        });
    }
    for candidate in candidates.join_all().await {
        candidate?;
    }
    let terms = terms.lock().expect("nobody panics").clone();
    assert_eq!(terms.len(), 4, "expected a term for each of four candidates");
    assert!(terms.is_sorted_by_key(|term| term.1), "expected rising fences, but got {terms:?}");
    Ok(())
}

async fn n2_a_term_ends_before_it_is_lost(store: Store) -> Result<()> {
    let (_, locks) = store.with_faults(|operation, _| match operation {
        Operation::Extend => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    let ttl = Duration::from_secs(12);
    let term = locks.election(fresh_key()).ttl(ttl).campaign().await?;
    term.ending().await;
    let left = term.remaining();
    assert!(
        left > Duration::ZERO && left <= ttl / 3,
        "expected up to a third of the TTL for the end, but {left:?} is left"
    );
    term.lost().await;
    assert_eq!(term.remaining(), Duration::ZERO, "expected nothing to be left of a lost term");
    Ok(())
}

async fn n2_the_lease_is_released_after_the_work_has_ended(store: Store) -> Result<()> {
    let (key, stop) = (fresh_key(), CancellationToken::new());
    let (locks, two) = (store.locks(), store.two.clone());
    let holders = Mutex::new(Vec::new());
    let work = async |ending: CancellationToken, fence: Fence| {
        stop.cancel();
        ending.cancelled().await;
        // Others look while the work winds up.
        for _ in 0..3 {
            sleep(Duration::from_millis(20)).await;
            let record = two.get(&key).await;
            let holder = record.map(|record| record.map(|record| record.fence()));
            holders.lock().expect("nobody panics").push((fence, holder));
        }
    };
    store.elector().lead(&locks, &key, &stop, work).await?;
    for (fence, holder) in holders.into_inner().expect("nobody panics") {
        let holder = holder?;
        assert_eq!(holder, Some(fence), "expected the lease to stand until the work has ended");
    }
    Ok(())
}

async fn n3_work_starts_and_stops_once_per_term(store: Store) -> Result<()> {
    let (key, key_is_free) = (fresh_key(), CancellationToken::new());
    let held = store.locks().lock(&key).ttl(LONG).acquire().await?;
    let starts = Mutex::new(Vec::new());
    let stop = CancellationToken::new();
    let other = LockManager::new(store.two.clone());
    let work = async |ending: CancellationToken, fence: Fence| {
        check!(key_is_free.is_cancelled());
        starts.lock().expect("nobody panics").push(fence);
        stop.cancel();
        ending.cancelled().await;
    };
    let lead = store.elector().lead(&other, &key, &stop, work);
    let free = async {
        // The candidate waits meanwhile, and must not be told that it leads.
        until(async || Ok(other.waiters() == 1)).await?;
        key_is_free.cancel();
        held.release().await.map(drop)
    };
    let (led, freed) = tokio::join!(lead, free);
    led?;
    freed?;
    let starts = starts.into_inner().expect("nobody panics");
    assert_eq!(starts.len(), 1, "expected one start, but got {starts:?}");
    store.until_free(&key).await
}

async fn n4_a_resignation_outlasts_failed_requests(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, before| match (operation, before) {
        (Operation::Release, 0) => Fault::Fail(ErrorCode::ServiceUnavailable),
        (Operation::Release, 1) => Fault::Fail(ErrorCode::Internal),
        _ => Fault::None,
    });
    let key = fresh_key();
    let held = store.elector().campaign(&locks, &key, LONG).await?;
    held.resign().await?;
    let freed = timeout(SOON, store.until_free(&key)).await;
    assert!(
        freed.is_ok(),
        "expected the key to be free after a resignation, but after {} requests it is held",
        faulty.count(Operation::Release)
    );
    Ok(())
}

async fn n4_shutdown_resigns(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let election = locks.election(&key).ttl(LONG);
    let lead = election.lead(async |term| -> Result<()> {
        term.ending().await;
        Ok(())
    });
    let end = async {
        until(async || Ok(locks.terms() == 1)).await?;
        locks.shutdown().await
    };
    let (led, ended) = tokio::join!(lead, end);
    led?;
    ended?;
    store.assert_free(&key).await
}

async fn n5_a_term_is_not_shown_after_a_successor_has_begun(store: Store) -> Result<()> {
    let (_, locks) = store.with_faults(|operation, _| match operation {
        Operation::Extend => Fault::Hang,
        _ => Fault::None,
    });
    let key = fresh_key();
    let held = store.elector().campaign(&locks, &key, SHORT).await?;
    check!(held.leads(), ==, Some(held.fence()));
    let successor = LockManager::new(store.two.clone());
    let successor = successor.election(&key).ttl(LONG).campaign().await?;
    let leads = held.leads();
    assert_eq!(leads, None, "expected no term beside that of fence {}", successor.fence());
    successor.resign().await?;
    Ok(())
}

/// The terms that were seen, numbered from 1, with 0 where nobody led.
fn terms(seen: &[Leadership]) -> Vec<usize> {
    let mut known = Vec::new();
    let mut number = |leadership: &Leadership| match leadership {
        Leadership::Vacant => Some(0),
        Leadership::Led { fence, .. } => {
            if !known.contains(fence) {
                known.push(*fence);
            }
            known.iter().position(|known| known == fence).map(|index| index + 1)
        }
        _ => None,
    };
    let mut terms: Vec<_> = seen.iter().filter_map(&mut number).collect();
    // A name that is published later is a change, too.
    terms.dedup();
    terms
}

async fn observed(
    store: &Store,
    key: &Key,
    expected: &[usize],
    act: impl AsyncFn(&dyn Fn() -> Vec<usize>) -> Result<()>,
) -> Result<()> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let locks = LockManager::new(store.two.clone());
    let enough = |seen: &[Leadership]| terms(seen).len() >= expected.len();
    let observe = timeout(2 * SOON, store.elector().observe(&locks, key, &seen, enough));
    let so_far = || terms(&seen.lock().expect("nobody panics"));
    let (observed, acted) =
        tokio::join!(observe, async { timeout(2 * SOON, act(&so_far)).await.unwrap_or(Ok(())) });
    acted?;
    drop(observed);
    let seen = so_far();
    assert_eq!(seen, expected, "expected an observer to see these terms, and 0 for a vacancy");
    Ok(())
}

async fn n5_an_observer_sees_leaders_and_vacancies(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    observed(&store, &key, &[0, 1, 0, 2, 0], async |seen| {
        for number in 1..=2 {
            until(async || Ok(seen().last() == Some(&0))).await?;
            let term = locks.election(&key).ttl(LONG).campaign().await?;
            until(async || Ok(seen().last() == Some(&number))).await?;
            term.resign().await?;
        }
        Ok(())
    })
    .await
}

async fn n5_an_observer_sees_that_a_leader_vanished(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    observed(&store, &key, &[0, 1, 0], async |seen| {
        until(async || Ok(seen() == [0])).await?;
        // Long enough for the observer to see it.
        locks.lock(&key).ttl(3 * SHORT).acquire().await?.detach();
        Ok(())
    })
    .await
}

async fn n7_what_a_leader_publishes_is_seen_while_it_leads(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let election = locks.election(&key).ttl(LONG).candidate("ada").value("10.0.0.1:80");
    let term = election.campaign().await?;
    let observers = LockManager::new(store.two.clone());
    let mut leaders = observers.election(&key).observe()?;
    let mut until_seen = async |wanted: Leadership| {
        while leaders.next().await != Some(wanted.clone()) {}
    };
    let led = |value: &str| Leadership::Led {
        fence: term.fence(),
        candidate: Some("ada".to_owned()),
        value: Some(value.as_bytes().to_owned()),
    };
    until_seen(led("10.0.0.1:80")).await;
    term.publish("10.0.0.2:80").await?;
    until_seen(led("10.0.0.2:80")).await;
    check!(term.resign().await?);
    until_seen(Leadership::Vacant).await;
    // A lock request publishes nothing, and what its predecessor has published is not shown.
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let unnamed = Leadership::Led { fence: guard.fence(), candidate: None, value: None };
    until_seen(unnamed).await;
    guard.release().await?;
    Ok(())
}

//! O: what an observer is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard::{Event, LockManager, Outcome, Reason};
use syncguard_core::{ErrorCode, Operation, Result};

use crate::faulty::{Faulty, Trouble};
use crate::store::{LONG, Store, fresh_id, fresh_key};

cases![
    o1_one_event_per_operation,
    o1_reasons_of_a_refusal,
    o1_a_failure_tells_its_code,
    o1_raw_names_only_if_asked_for,
    o1_an_observer_that_panics_does_no_harm,
];

type Events = Arc<Mutex<Vec<Event>>>;

/// Collects events.
fn events() -> (Events, impl Fn(&Event) + Send + Sync + 'static) {
    let events = Events::default();
    let collect = events.clone();
    let observer = move |event: &Event| collect.lock().unwrap().push(event.clone());
    (events, observer)
}

fn outcomes(events: &Events) -> Vec<(Operation, Outcome)> {
    let events = events.lock().unwrap();
    let outcomes = events.iter().map(|event| (event.operation(), event.outcome()));
    outcomes.collect()
}

async fn o1_one_event_per_operation(store: Store) -> Result<()> {
    let (events, observer) = events();
    let locks = LockManager::builder(store.one.clone()).observer(observer).build();
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let id = guard.id().clone();
    guard.extend(LONG).await?;
    locks.get(&key).await?;
    locks.find(&id).await?;
    locks.extend_by_id(&id, LONG).await?;
    guard.release().await?;
    let operations = [
        Operation::Acquire,
        Operation::Extend,
        Operation::Get,
        Operation::Find,
        Operation::Extend,
        Operation::Release,
    ];
    let expected = operations.map(|operation| (operation, Outcome::Done));
    assert_eq!(outcomes(&events), expected);
    for event in events.lock().unwrap().iter() {
        let (known_key, known_id) = (event.key(), event.id());
        assert!(known_key.is_none_or(|known| known == key.fingerprint()));
        assert!(known_id.is_none_or(|known| known == id.fingerprint()));
        assert!(known_key.or(known_id).is_some(), "an event about nothing");
        assert!(event.duration() < LONG);
    }
    Ok(())
}

async fn o1_reasons_of_a_refusal(store: Store) -> Result<()> {
    let (events, observer) = events();
    let locks = LockManager::builder(store.one.clone()).observer(observer).build();
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let id = fresh_id();
    assert!(locks.lock(&key).try_acquire().await?.is_none());
    locks.get(&fresh_key()).await?;
    locks.find(&id).await?;
    locks.extend_by_id(&id, LONG).await?;
    locks.release_by_id(&id).await?;
    let refused = |operation, reason| (operation, Outcome::Refused(reason));
    let expected = [
        refused(Operation::Acquire, Reason::Locked),
        refused(Operation::Get, Reason::NotFound),
        refused(Operation::Find, Reason::NotFound),
        refused(Operation::Extend, Reason::NotFound),
        refused(Operation::Release, Reason::NotFound),
    ];
    assert_eq!(outcomes(&events), expected);
    let reasons = [Reason::Locked, Reason::Expired, Reason::NotFound];
    assert_eq!(reasons.map(Reason::as_str), ["locked", "expired", "not-found"]);

    // A lease that ended by time, which its guard knows.
    events.lock().unwrap().clear();
    let request = locks.lock(fresh_key()).ttl(Duration::from_millis(1));
    let guard = request.acquire().await?;
    guard.lost().await;
    store.until_free(guard.key()).await?;
    assert!(!guard.release().await?);
    let last = outcomes(&events).pop();
    assert_eq!(last, Some(refused(Operation::Release, Reason::Expired)));
    Ok(())
}

async fn o1_a_failure_tells_its_code(store: Store) -> Result<()> {
    let (events, observer) = events();
    let failure = ErrorCode::RateLimited;
    let faulty = Faulty::new(store.one.clone(), move |_, _| Trouble::Refuse(failure));
    let locks = LockManager::builder(faulty).observer(observer).build();
    assert!(locks.get(&fresh_key()).await.is_err());
    let expected = [(Operation::Get, Outcome::Failed(failure))];
    assert_eq!(outcomes(&events), expected);
    Ok(())
}

async fn o1_raw_names_only_if_asked_for(store: Store) -> Result<()> {
    for asked in [false, true] {
        let (events, observer) = events();
        let builder = LockManager::builder(store.one.clone()).observer(observer);
        let builder = if asked { builder.observe_raw_names() } else { builder };
        let (key, locks) = (fresh_key(), builder.build());
        let guard = locks.lock(&key).ttl(LONG).acquire().await?;
        let id = guard.id().clone();
        guard.release().await?;
        for event in events.lock().unwrap().iter() {
            let shown = (event.raw_key().is_some(), event.raw_id().is_some());
            assert_eq!(shown, (asked, asked));
            let text = format!("{event:?}");
            assert!(!text.contains(key.as_str()) && !text.contains(id.as_str()));
        }
    }
    Ok(())
}

async fn o1_an_observer_that_panics_does_no_harm(store: Store) -> Result<()> {
    let locks = LockManager::builder(store.one.clone())
        .observer(|_| std::panic::resume_unwind(Box::new("expected")))
        .build();
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    guard.extend(LONG).await?;
    assert!(locks.is_locked(&key).await?);
    assert!(guard.release().await?);
    assert!(!store.is_held(&key).await?);
    Ok(())
}

//! O: the events for an observer, and the fields of spans.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard::{Backoff, Event, LockManager, Outcome, Reason};
use syncguard_core::{Backend, ErrorCode, Operation, Result};
use syncguard_memory::Fault;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use crate::expect::{assert_not_released, assert_released, code};
use crate::store::{LONG, QUICK, SLOW, Store, fresh_id, fresh_key, until};
use crate::waiter::Waiter;

cases![
    o1_one_event_per_operation,
    o1_reasons_of_a_refusal,
    o1_a_failure_event_has_its_code,
    o1_raw_names_only_if_asked_for,
    o1_an_observer_that_panics_does_no_harm,
    o2_spans_carry_fingerprints_codes_and_attempts,
    o3_the_event_of_a_wait_has_outcome_attempts_and_duration,
    o3_a_wait_served_by_a_handoff_took_no_attempt,
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
        Operation::Wait,
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
        check!(known_key.is_none_or(|known| known == key.fingerprint()));
        check!(known_id.is_none_or(|known| known == id.fingerprint()));
        assert!(
            known_key.or(known_id).is_some(),
            "expected a key or an id in every event, but one has neither"
        );
        check!(event.duration(), <, LONG);
    }
    Ok(())
}

async fn o1_reasons_of_a_refusal(store: Store) -> Result<()> {
    let (events, observer) = events();
    let locks = LockManager::builder(store.one.clone()).observer(observer).build();
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let id = fresh_id();
    check!(locks.lock(&key).try_acquire().await?.is_none());
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

    // A guard knows that its lease has expired.
    events.lock().unwrap().clear();
    // Longer than a busy machine takes to answer.
    let request = locks.lock(fresh_key()).ttl(Duration::from_secs(2));
    let guard = request.acquire().await?;
    guard.lost().await;
    store.until_free(guard.key()).await?;
    assert_not_released(guard.release().await?);
    let last = outcomes(&events).pop();
    assert_eq!(last, Some(refused(Operation::Release, Reason::Expired)));
    Ok(())
}

async fn o1_a_failure_event_has_its_code(store: Store) -> Result<()> {
    let (events, observer) = events();
    let failure = ErrorCode::RateLimited;
    let faulty = store.faulty(move |_, _| Fault::Fail(failure));
    let locks = LockManager::builder(faulty).observer(observer).build();
    check!(locks.get(&fresh_key()).await.is_err());
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
            check!(!text.contains(key.as_str()));
            check!(!text.contains(id.as_str()));
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
    check!(locks.is_locked(&key).await?);
    assert_released(guard.release().await?);
    store.assert_free(&key).await?;
    Ok(())
}

/// Checks the spans of a wait and of a lookup, because those are created on the thread of the
/// caller.
async fn o2_spans_carry_fingerprints_codes_and_attempts(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let faulty = store.faulty(|operation, _| match operation {
        Operation::Get => Fault::Fail(ErrorCode::AuthFailed),
        _ => Fault::None,
    });
    // An attempt after a notification is not a retry, so notifications are off.
    let locks = LockManager::new(faulty.without_notifications());
    let backoff = Backoff::fixed(Duration::from_millis(1));
    let wait = |retries| locks.lock(&key).max_retries(retries).backoff(backoff);
    // `tracing` disables a span that it first meets on a thread without a subscriber, until the
    // next subscriber is set. A first subscriber therefore meets all spans, and a second one
    // collects them.
    let met = tracing::subscriber::set_default(Spans::default());
    check!(wait(0).acquire().await.is_err());
    let spans = Spans::default();
    let collecting = tracing::subscriber::set_default(spans.clone());
    check!(wait(1).acquire().await.is_err());
    check!(locks.get(&key).await.is_err());
    check!(locks.find(lease.id()).await.is_ok());
    drop((collecting, met));

    let spans = spans.0.lock().unwrap();
    let (key_print, id_print) = (key.fingerprint(), lease.id().fingerprint());
    let expected = [
        format!("syncguard.acquire key={key_print} attempts=2 code=\"AcquisitionTimeout\""),
        format!("syncguard operation=\"get\" key={key_print} code=\"AuthFailed\""),
        format!("syncguard operation=\"find\" id={id_print}"),
    ];
    for expected in &expected {
        assert!(spans.contains(expected), "expected a span {expected:?}, but got {spans:?}");
    }
    let all = spans.concat();
    check!(!all.contains(key.as_str()));
    check!(!all.contains(lease.id().as_str()));
    Ok(())
}

async fn o3_the_event_of_a_wait_has_outcome_attempts_and_duration(store: Store) -> Result<()> {
    let (events, observer) = events();
    let faulty = store.faulty(|_, _| Fault::None).without_notifications();
    let locks = LockManager::builder(faulty.clone()).observer(observer).build();
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let asked = Instant::now();
    let first = Waiter::for_fence(locks.lock(&key).ttl(LONG).wait(LONG).backoff(QUICK)).await;
    until(async || Ok(faulty.count(Operation::Acquire) >= 2)).await?;
    let second_asked = Instant::now();
    let short = Duration::from_millis(100);
    let outcome = locks.lock(&key).wait(short).backoff(QUICK).acquire().await;
    assert_eq!(code(outcome), ErrorCode::AcquisitionTimeout);
    let second_took = second_asked.elapsed();
    assert_released(store.one.release(&lease).await?);
    first.outcome().await?;
    let took = asked.elapsed();

    let events = events.lock().unwrap();
    let waits = events.iter().filter(|event| event.operation() == Operation::Wait);
    let [second, first] = waits.collect::<Vec<_>>()[..] else {
        panic!("expected one event of each wait, but got {events:?}");
    };
    assert_eq!(second.outcome(), Outcome::Failed(ErrorCode::AcquisitionTimeout));
    assert_eq!(second.attempts(), Some(0), "expected no attempt by the second waiter");
    check!(short, <=, second.duration());
    check!(second.duration(), <=, second_took);
    assert_eq!(first.outcome(), Outcome::Done);
    assert_eq!(first.attempts(), u32::try_from(faulty.count(Operation::Acquire)).ok());
    check!(second_took, <=, first.duration());
    check!(first.duration(), <=, took);
    for event in [first, second] {
        assert_eq!(event.key(), Some(key.fingerprint()));
    }
    Ok(())
}

/// With handoff, the wait took no attempt. Without it, the wait took one or more.
async fn o3_a_wait_served_by_a_handoff_took_no_attempt(store: Store) -> Result<()> {
    let (events, observer) = events();
    let locks = LockManager::builder(store.one.clone()).observer(observer).build();
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let waiter = Waiter::for_guard(locks.lock(&key).ttl(LONG).wait(LONG).backoff(SLOW)).await;
    assert_released(guard.release().await?);
    let guard = waiter.outcome().await?;
    let id = guard.id().fingerprint();
    assert_released(guard.release().await?);

    let events = events.lock().unwrap();
    let attempts =
        |event: &&Event| event.operation() == Operation::Acquire && event.id() == Some(id);
    let attempts = events.iter().filter(attempts).count();
    let handed_off = events.iter().any(|event| event.operation() == Operation::Handoff);
    let wait = events.iter().rfind(|event| event.operation() == Operation::Wait);
    let wait = wait.expect("expected one event per wait, but got none");
    assert_eq!((wait.outcome(), wait.id()), (Outcome::Done, Some(id)));
    assert_eq!(wait.attempts(), u32::try_from(attempts).ok());
    assert_eq!(attempts == 0, handed_off);
    Ok(())
}

/// Collects the names and fields of spans.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        spans.push(text);
        Id::from_u64(u64::try_from(spans.len()).unwrap())
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let number = usize::try_from(span.into_u64()).unwrap();
        let mut spans = self.0.lock().unwrap();
        values.record(&mut Fields(&mut spans[number - 1]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

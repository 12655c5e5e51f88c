//! W2, O3: what a wait that ends without a lock says, to its caller and to an observer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::log::Log;
use support::{plain, with_notifications_and_handoff};
use syncguard::{
    Acquired, AnyBackend, Backend, Backoff, CancellationToken, Capabilities, Clock, ErrorCode,
    Event, Jitter, Key, Lease, LockId, LockManager, LockRecord, Operation, Outcome, Result, Ttl,
};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn every_second() -> Backoff {
    Backoff::fixed(SECOND).with_jitter(Jitter::None)
}

async fn message_of(request: syncguard::LockRequest) -> String {
    let error = request.acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout, "{error}");
    assert_eq!(error.key(), Some(syncguard::Fingerprint::of("key")));
    error.message().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn w2_the_message_says_how_long_it_waited_and_when_the_lease_ends() {
    let backend = plain();
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(60 * SECOND).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    // The store keeps a lease for a second after its TTL.
    assert_eq!(
        message_of(locks.lock("key").wait(2_500 * MS).backoff(every_second())).await,
        "the key is held: waited 2.5s, the wait limit; the lease ends in 58.5s unless it is extended"
    );
    assert_eq!(
        message_of(locks.lock("key").max_retries(3).backoff(every_second())).await,
        "the key is held: waited 3s, all retries are used up after 4 attempts; the lease ends in \
         55.5s unless it is extended"
    );
}

#[tokio::test(start_paused = true)]
async fn w2_the_message_says_that_this_process_holds_the_key() {
    let locks = LockManager::new(plain());
    let guard = locks.lock("key").ttl(60 * SECOND).acquire().await.unwrap();
    assert_eq!(
        message_of(locks.lock("key").wait(SECOND)).await,
        "the key is held: waited 1s, the wait limit; the lease ends in 59s unless it is extended; \
         this process itself holds the key: locks are not re-entrant"
    );
    guard.extend(30 * SECOND).await.unwrap();
    let message = message_of(locks.lock("key").wait(SECOND)).await;
    assert!(message.contains("ends in 29s"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn w2_the_message_is_the_same_for_those_behind_in_the_queue() {
    let backend = plain();
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(60 * SECOND).acquire().await.unwrap();
    let locks = LockManager::new(backend.clone());
    let request = locks.lock("key").wait(2_500 * MS).backoff(every_second());
    let (first, second) = tokio::join!(message_of(request.clone()), message_of(request));
    assert_eq!(first, second);
}

#[tokio::test(start_paused = true)]
async fn w2_the_message_counts_attempts_for_notifications_too() {
    let backend = with_notifications_and_handoff();
    let others = LockManager::new(backend.clone());
    let locks = LockManager::new(backend.clone());
    let held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let request = locks.lock("key").wait(HOUR).max_retries(1).backoff(every_second());
    let waiter = Handle::current().spawn(message_of(request));
    sleep(100 * MS).await;
    // Others release the key and take it again before the waiter can.
    let mut held = Some(held);
    for _ in 0..3 {
        held.take().unwrap().release().await.unwrap();
        held = Some(others.lock("key").ttl(HOUR).acquire().await.unwrap());
        sleep(50 * MS).await;
    }
    let message = waiter.await.unwrap();
    // All attempts but the four of the others.
    let attempts = backend.count(Operation::Acquire) - 4;
    assert!(attempts > 2, "{attempts}");
    assert!(message.contains(&format!("used up after {attempts} attempts")), "{message}");
}

/// A backend that does not know how long a lease still lasts.
#[derive(Debug)]
struct Vague(AnyBackend);

impl Backend for Vague {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Clock::Server)
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        match self.0.acquire(key, id, ttl).await? {
            Acquired::Held { .. } => Ok(Acquired::Held { remaining: None }),
            granted => Ok(granted),
        }
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.0.extend(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.0.release(lease).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.0.extend_by_id(id, ttl).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.0.release_by_id(id).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        self.0.get(key).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.0.find(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn w2_the_message_leaves_out_what_the_backend_does_not_know() {
    let backend = MemoryBackend::new();
    let _held = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
    let locks = LockManager::new(Vague(AnyBackend::new(backend)));
    assert_eq!(
        message_of(locks.lock("key").wait(SECOND)).await,
        "the key is held: waited 1s, the wait limit"
    );
}

type Events = Arc<Mutex<Vec<Event>>>;

/// A manager, and the events of its waits.
fn observed(backend: &FaultyBackend) -> (LockManager, Events) {
    let events = Events::default();
    let waits = events.clone();
    let locks = LockManager::builder(backend.clone())
        .observer(move |event| {
            if event.operation() == Operation::Wait {
                waits.lock().unwrap().push(event.clone());
            }
        })
        .build();
    (locks, events)
}

#[tokio::test(start_paused = true)]
async fn o3_a_wait_whose_future_is_dropped_is_one_event() {
    let (log, _logging) = Log::of_this_thread();
    let backend = plain();
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let (locks, events) = observed(&backend);
    let request = locks.lock("key").wait(HOUR).backoff(every_second());
    assert!(timeout(2_500 * MS, request.acquire()).await.is_err());
    {
        let events = events.lock().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].outcome(), Outcome::Failed(ErrorCode::Aborted));
        assert_eq!(events[0].attempts(), Some(3));
        assert_eq!(events[0].duration(), 2_500 * MS);
        assert_eq!(events[0].key(), Some(syncguard::Fingerprint::of("key")));
        assert_eq!(events[0].id(), None);
    }
    let spans = log.spans("syncguard.acquire");
    // The one of the holder, and that of the wait.
    assert_eq!(spans.len(), 2);
    let failed: Vec<_> = spans.iter().filter(|span| span.contains("code")).collect();
    assert_eq!(failed.len(), 1, "{spans:?}");
    for part in ["attempts=3", "Aborted"] {
        assert!(failed[0].contains(part), "{failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn o3_a_dropped_wait_is_one_event_wherever_it_was() {
    let backend = plain();
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    let (locks, events) = observed(&backend);
    // First in the queue with an attempt under way, and behind in the queue.
    backend.next(Operation::Acquire, Fault::Hang);
    let (first, behind) = (locks.lock("key").wait(HOUR), locks.lock("key").wait(HOUR));
    let both = async { tokio::join!(first.acquire(), behind.acquire()) };
    assert!(timeout(SECOND, both).await.is_err());
    // In `run`, too.
    let run = locks.lock("key").wait(HOUR).run(async |_| -> Result<()> { Ok(()) });
    assert!(timeout(SECOND, run).await.is_err());
    // One that was never polled did not wait.
    drop(locks.lock("key").acquire());
    let events = events.lock().unwrap();
    let aborted = Outcome::Failed(ErrorCode::Aborted);
    assert!(events.iter().all(|event| event.outcome() == aborted), "{events:?}");
    assert!(events.iter().all(|event| event.duration() == SECOND), "{events:?}");
    let mut attempts: Vec<_> = events.iter().map(|event| event.attempts().unwrap()).collect();
    attempts.truncate(2);
    attempts.sort_unstable();
    assert_eq!(attempts, [0, 1]);
    assert_eq!(events.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn o3_every_other_wait_is_one_event_too() {
    let backend = plain();
    let (locks, events) = observed(&backend);
    let guard = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    assert!(locks.lock("key").wait(SECOND).acquire().await.is_err());
    let token = CancellationToken::new();
    let cancelled = Handle::current().spawn(locks.lock("key").cancel(token.clone()).acquire());
    sleep(MS).await;
    token.cancel();
    assert!(cancelled.await.unwrap().is_err());
    let stopped = Handle::current().spawn(locks.lock("key").acquire());
    sleep(MS).await;
    locks.shutdown().await.unwrap();
    assert!(stopped.await.unwrap().is_err());
    let events = events.lock().unwrap();
    let outcomes: Vec<_> = events.iter().map(Event::outcome).collect();
    let failed = Outcome::Failed;
    let (timeout, aborted) = (failed(ErrorCode::AcquisitionTimeout), failed(ErrorCode::Aborted));
    assert_eq!(outcomes, [Outcome::Done, timeout, aborted, aborted]);
    assert_eq!(events[0].id(), Some(guard.id().fingerprint()));
}

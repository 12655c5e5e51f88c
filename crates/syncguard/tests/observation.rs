//! N5, N7: what observers of an election see.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_core::Stream;
use support::waiters::MS;
use support::with_notifications_and_handoff;
use syncguard::{
    Acquired, Backend, Capabilities, ErrorCode, Fence, Key, Leadership, Lease, LockId, LockManager,
    LockRecord, Observation, Operation, Outcome, Result, Term, Ttl,
};
use syncguard_memory::{Fault, MemoryBackend};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

fn led(term: &Term, published: Option<(&str, &str)>) -> Leadership {
    Leadership::Led {
        fence: term.fence(),
        candidate: published.map(|(candidate, _)| candidate.to_owned()),
        value: published.map(|(_, value)| value.as_bytes().to_owned()),
    }
}

/// The next change, and how long it took.
async fn next(leaders: &mut Observation) -> (Leadership, Duration) {
    let began = Instant::now();
    let leadership = timeout(60 * SECOND, leaders.next()).await;
    (leadership.unwrap().unwrap(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn n5_an_observer_sees_how_things_stand_and_then_each_change() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await, (Leadership::Vacant, Duration::ZERO));
    let term = others.election("key").ttl(TTL).campaign().await.unwrap();
    let (seen, after) = next(&mut leaders).await;
    assert_eq!(seen, led(&term, None));
    assert!(after <= SECOND, "{after:?}");
    // Nothing changes while the term is renewed.
    assert!(timeout(10 * TTL, leaders.next()).await.is_err());
    term.resign().await.unwrap();
    let (seen, after) = next(&mut leaders).await;
    assert_eq!(seen, Leadership::Vacant);
    assert!(after <= 20 * MS, "{after:?}");
    // One that begins later sees the same.
    let mut late = others.election("key").observe().unwrap();
    assert_eq!(next(&mut late).await.0, Leadership::Vacant);
    let term = locks.lock("key").acquire().await.unwrap();
    let Leadership::Led { fence, candidate: None, value: None } = next(&mut late).await.0 else {
        panic!("a lock request leads as well");
    };
    assert_eq!(fence, term.fence());
}

#[tokio::test(start_paused = true)]
async fn n5_a_leader_that_vanished_is_seen_when_its_lease_ends() {
    for backend in
        [with_notifications_and_handoff(), with_notifications_and_handoff().without_notifications()]
    {
        let locks = LockManager::new(backend);
        let mut leaders = locks.election("key").observe().unwrap();
        assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
        let crashed = locks.lock("key").ttl(TTL).acquire().await.unwrap().detach();
        let began = Instant::now();
        let Leadership::Led { fence, .. } = next(&mut leaders).await.0 else { panic!() };
        assert_eq!(fence, crashed.fence());
        assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
        // The store keeps a lease for a second longer. Its clock and that of this test have nothing
        // to do with the clock of this machine, so only the timer is left.
        let late = began.elapsed() - (TTL + SECOND);
        assert!(late <= 5 * SECOND, "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn n5_without_an_answer_nobody_knows() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, None));
    let answered = Instant::now();
    sleep(SECOND).await;
    backend.on_call(|operation, _| match operation {
        Operation::Get => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    let Leadership::Unknown { since } = next(&mut leaders).await.0 else { panic!() };
    assert!(since >= answered.into_std() && since <= Instant::now().into_std());
    // It says so once, and goes on when the store answers.
    assert!(timeout(10 * SECOND, leaders.next()).await.is_err());
    backend.on_call(|_, _| Fault::None);
    let (seen, after) = next(&mut leaders).await;
    assert_eq!(seen, led(&term, None));
    assert!(after <= SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn n5_a_stream_ends_with_its_manager_and_drops_no_change_with_a_future() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend));
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
    let term = others.election("key").ttl(TTL).campaign().await.unwrap();
    while timeout(MS, leaders.next()).await.is_err() {}
    term.resign().await.unwrap();
    let stream = std::future::poll_fn(|cx| Pin::new(&mut leaders).poll_next(cx));
    assert_eq!(stream.await, Some(Leadership::Vacant));
    locks.shutdown().await.unwrap();
    assert_eq!(leaders.next().await, None);
    assert_eq!(leaders.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn n5_the_length_of_a_vacancy_is_an_event() {
    let backend = with_notifications_and_handoff();
    let vacancies = Arc::new(Mutex::new(Vec::new()));
    let seen = vacancies.clone();
    let locks = LockManager::builder(backend)
        .observer(move |event| {
            if event.operation() == Operation::Vacancy {
                assert_eq!(event.outcome(), Outcome::Done);
                seen.lock().unwrap().push(event.duration());
            }
        })
        .build();
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
    assert!(timeout(4 * SECOND, leaders.next()).await.is_err());
    let term = locks.election("key").campaign().await.unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, None));
    let vacancies = vacancies.lock().unwrap().clone();
    assert_eq!(vacancies.len(), 1);
    assert!((4 * SECOND..=5 * SECOND).contains(&vacancies[0]), "{vacancies:?}");
}

#[tokio::test(start_paused = true)]
async fn n7_what_a_leader_publishes_is_seen_while_it_leads() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let mut leaders = others.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
    let election = locks.election("key").ttl(TTL).candidate("ada").value("10.0.0.1:80");
    let term = election.campaign().await.unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", "10.0.0.1:80"))));
    term.publish("10.0.0.2:80").await.unwrap();
    let (seen, after) = next(&mut leaders).await;
    assert_eq!(seen, led(&term, Some(("ada", "10.0.0.2:80"))));
    assert!(after <= 5 * SECOND, "{after:?}");
    // It is renewed with the lease.
    assert!(timeout(10 * TTL, leaders.next()).await.is_err());
    term.resign().await.unwrap();
    assert_eq!(next(&mut leaders).await.0, Leadership::Vacant);
    let refused = term.publish("10.0.0.3:80").await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Lost);
    let key = Key::new("key").unwrap();
    assert_eq!(backend.inner().published(&key).await.unwrap(), None);
    // The next leader publishes nothing, and nothing of its predecessor is shown.
    let term = others.election("key").campaign().await.unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, None));
}

#[tokio::test(start_paused = true)]
async fn n7_a_term_that_was_overtaken_publishes_no_more() {
    let backend = with_notifications_and_handoff();
    let (locks, others) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(MS).await;
    backend.lose_lease("key").await.unwrap();
    let next_term = others.election("key").ttl(TTL).candidate("bob").campaign().await.unwrap();
    sleep(MS).await;
    assert!(!term.remaining().is_zero(), "no renewal has noticed it yet");
    for value in ["10.0.0.1:80", "10.0.0.2:80"] {
        let refused = timeout(MS, term.publish(value)).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Lost);
    }
    drop(next_term);
}

#[tokio::test(start_paused = true)]
async fn n7_a_publication_of_an_earlier_term_is_not_shown() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(SECOND).await;
    // The lease is gone, and the publication is not.
    backend.lose_lease("key").await.unwrap();
    let next_term = locks.lock("key").acquire().await.unwrap();
    let key = Key::new("key").unwrap();
    assert!(backend.inner().published(&key).await.unwrap().is_some());
    let mut leaders = locks.election("key").observe().unwrap();
    let seen = next(&mut leaders).await.0;
    let fence = next_term.fence();
    assert_eq!(seen, Leadership::Led { fence, candidate: None, value: None });
    drop(term);
}

#[tokio::test(start_paused = true)]
async fn n7_a_value_that_could_not_be_published_is_published_later() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(SECOND).await;
    backend.next(Operation::Publish, Fault::Fail(ErrorCode::ServiceUnavailable));
    let failed = term.publish("10.0.0.1:80").await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::ServiceUnavailable);
    sleep(TTL / 3).await;
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", "10.0.0.1:80"))));
}

#[tokio::test(start_paused = true)]
async fn n7_a_value_is_published_although_its_caller_has_gone() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(SECOND).await;
    // A renewal hangs, and the caller does not wait for its end.
    backend.next(Operation::Publish, Fault::DelayRequest(3 * SECOND));
    sleep(TTL / 3).await;
    assert!(timeout(MS, term.publish("10.0.0.1:80")).await.is_err());
    sleep(TTL).await;
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", "10.0.0.1:80"))));
}

#[tokio::test(start_paused = true)]
async fn n7_no_value_overtakes_one_whose_caller_has_gone() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(SECOND).await;
    backend.next(Operation::Publish, Fault::HoldRequest);
    assert!(timeout(MS, term.publish("10.0.0.1:80")).await.is_err());
    let sent = backend.count(Operation::Publish);
    assert!(timeout(MS, term.publish("10.0.0.2:80")).await.is_err());
    assert_eq!(backend.count(Operation::Publish), sent);
    backend.open();
    sleep(MS).await;
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", "10.0.0.2:80"))));
}

#[tokio::test(start_paused = true)]
async fn n7_callers_that_have_gone_leave_no_tasks_behind() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(SECOND).await;
    backend.next(Operation::Publish, Fault::HoldRequest);
    assert!(timeout(MS, term.publish("0")).await.is_err());
    let metrics = Handle::current().metrics();
    let tasks = metrics.num_alive_tasks();
    for n in 1..=100 {
        assert!(timeout(MS, term.publish(n.to_string())).await.is_err());
    }
    assert_eq!(metrics.num_alive_tasks(), tasks);
    backend.open();
    sleep(MS).await;
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", "100"))));
}

#[tokio::test(start_paused = true)]
async fn n7_a_failure_that_seemed_final_is_not() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    // A table is missing, and somebody creates it.
    backend.next(Operation::Publish, Fault::Fail(ErrorCode::InvalidArgument));
    let term = locks.election("key").ttl(TTL).candidate("ada").campaign().await.unwrap();
    sleep(3 * TTL).await;
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, Some(("ada", ""))));
    // A failed read does not hide what was seen for the same term.
    backend.on_call(|operation, _| match operation {
        Operation::Published => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    assert!(timeout(TTL, leaders.next()).await.is_err());
}

/// A store whose reads come from a replica that lags behind, when it is told so.
#[derive(Debug)]
struct Lagging {
    store: MemoryBackend,
    replica: MemoryBackend,
    lags: Arc<AtomicBool>,
}

impl Backend for Lagging {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.store.acquire(key, id, ttl).await
    }
    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.store.extend(lease, ttl).await
    }
    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.store.release(lease).await
    }
    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.store.extend_by_id(id, ttl).await
    }
    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.store.release_by_id(id).await
    }
    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let lags = self.lags.load(Ordering::Relaxed);
        if lags { self.replica.get(key).await } else { self.store.get(key).await }
    }
    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.store.find(id).await
    }
}

#[tokio::test(start_paused = true)]
async fn n5_an_observer_never_goes_back_to_a_lower_fence() {
    let (store, replica) = (MemoryBackend::new(), MemoryBackend::new());
    let lags = Arc::new(AtomicBool::new(false));
    let locks = LockManager::new(Lagging { store, replica: replica.clone(), lags: lags.clone() });
    drop(locks.lock("key").acquire().await.unwrap());
    sleep(MS).await;
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    let _old = LockManager::new(replica).lock("key").acquire().await.unwrap();
    let mut leaders = locks.election("key").observe().unwrap();
    assert_eq!(next(&mut leaders).await.0, led(&term, None));
    lags.store(true, Ordering::Relaxed);
    assert!(matches!(next(&mut leaders).await.0, Leadership::Unknown { .. }));
    lags.store(false, Ordering::Relaxed);
    assert_eq!(next(&mut leaders).await.0, led(&term, None));
    assert_eq!(term.fence(), Fence::new(2).unwrap());
}

//! Every fault does what its documentation says, on a clock that stands still between events.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::pin::pin;
use std::time::Duration;

use syncguard_memory::{
    Acquired, Backend, Clock, ErrorCode, Fault, FaultyBackend, Key, Lease, LockId, MemoryBackend,
    Notifications, Operation, Publication, Result, Ttl,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn faulty() -> FaultyBackend {
    FaultyBackend::new(MemoryBackend::new())
}

fn key() -> Key {
    Key::new("key").unwrap()
}

fn ttl() -> Ttl {
    Duration::from_secs(3_600).try_into().unwrap()
}

async fn take(backend: &FaultyBackend) -> Result<Lease> {
    match backend.acquire(&key(), &LockId::random()?, ttl()).await? {
        Acquired::Granted(lease) => Ok(lease),
        Acquired::Held { .. } => panic!("expected a grant, but the key is held"),
    }
}

async fn is_held(backend: &FaultyBackend) -> bool {
    backend.inner().get(&key()).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_does_not_act_and_a_lost_reply_does() {
    let backend = faulty();
    backend.next(Operation::Acquire, Fault::Fail(ErrorCode::RateLimited));
    assert_eq!(take(&backend).await.unwrap_err().code(), ErrorCode::RateLimited);
    assert!(!is_held(&backend).await);
    backend.next(Operation::Acquire, Fault::LoseReply(ErrorCode::Internal));
    assert_eq!(take(&backend).await.unwrap_err().code(), ErrorCode::Internal);
    assert!(is_held(&backend).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_or_a_reply_is_delayed() {
    let backend = faulty();
    let start = Instant::now();
    backend.next(Operation::Acquire, Fault::DelayRequest(20 * MS));
    let acquire = Handle::current().spawn({
        let backend = backend.clone();
        async move { take(&backend).await }
    });
    sleep(10 * MS).await;
    assert!(!is_held(&backend).await, "expected the request to be under way");
    let lease = acquire.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), 20 * MS);

    backend.next(Operation::Release, Fault::DelayReply(20 * MS));
    assert!(timeout(10 * MS, backend.release(&lease)).await.is_err());
    assert!(!is_held(&backend).await, "expected the release to have acted");
}

#[tokio::test(start_paused = true)]
async fn a_call_hangs_or_is_held_until_it_is_opened() {
    let backend = faulty();
    backend.next(Operation::Acquire, Fault::Hang);
    assert!(timeout(1_000 * MS, take(&backend)).await.is_err());
    assert!(!is_held(&backend).await);

    for (fault, acts) in [(Fault::HoldRequest, false), (Fault::HoldReply, true)] {
        let backend = faulty();
        backend.next(Operation::Acquire, fault);
        let mut acquire = pin!(take(&backend));
        assert!(timeout(1_000 * MS, acquire.as_mut()).await.is_err());
        assert_eq!((backend.held(), is_held(&backend).await), (1, acts), "{fault:?}");
        backend.open();
        acquire.await.unwrap();
        assert_eq!(backend.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_lands_late_fails_first() {
    let backend = faulty();
    backend.next(Operation::Acquire, Fault::LandLate(20 * MS));
    assert_eq!(take(&backend).await.unwrap_err().code(), ErrorCode::NetworkTimeout);
    assert!(!is_held(&backend).await);
    sleep(30 * MS).await;
    assert!(is_held(&backend).await);
}

#[tokio::test(start_paused = true)]
async fn a_rule_chooses_by_operation_and_number_of_earlier_calls() {
    let backend = faulty();
    backend.on_call(|operation, earlier| match (operation, earlier) {
        (Operation::Acquire, 1..=2) => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    backend.next(Operation::Acquire, Fault::Fail(ErrorCode::AuthFailed));
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(take(&backend).await.err().map(|error| error.code()));
    }
    // A fault for the next call comes before the rule.
    let down = Some(ErrorCode::ServiceUnavailable);
    assert_eq!(codes, [Some(ErrorCode::AuthFailed), down, down, None]);
    assert_eq!(backend.count(Operation::Acquire), 4);
    assert_eq!(backend.count(Operation::Release), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_are_recorded_with_their_id_and_instant() {
    let backend = faulty();
    let lease = take(&backend).await.unwrap();
    sleep(30 * MS).await;
    assert!(backend.release_by_id(lease.id()).await.unwrap());
    let history = backend.history();
    let operations: Vec<_> = history.iter().map(|call| call.operation()).collect();
    assert_eq!(operations, [Operation::Acquire, Operation::Release]);
    assert!(history.iter().all(|call| call.id() == Some(lease.id())));
    assert_eq!(history[1].at() - history[0].at(), 30 * MS);
    assert_eq!(backend.calls(Operation::Release).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_gone_and_its_key_is_free() {
    let backend = faulty();
    let lease = take(&backend).await.unwrap();
    assert!(backend.lose_lease("key").await.unwrap());
    assert!(!backend.lose_lease("key").await.unwrap());
    assert_eq!(backend.extend(&lease, ttl()).await.unwrap(), None);
    let next = take(&backend).await.unwrap();
    assert!(next.fence() > lease.fence());
    assert!(backend.lose_lease_by_id(next.id()).await.unwrap());
    assert_eq!(backend.lose_lease("").await.unwrap_err().code(), ErrorCode::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn notifications_are_passed_or_lost_or_spurious() {
    use Notifications::{Lossy, Lost, Passed, Spurious};
    for (notifications, arrive) in
        [(Passed, [true, true]), (Lossy, [true, false]), (Lost, [false, false])]
    {
        let backend = faulty();
        backend.set_notifications(notifications);
        for expected in arrive {
            let notified = backend.notified(&key());
            assert_eq!(backend.registrations(), 1);
            let lease = take(&backend).await.unwrap();
            backend.release(&lease).await.unwrap();
            assert_eq!(timeout(MS, notified).await.is_ok(), expected, "{notifications:?}");
        }
        assert_eq!((backend.registrations(), backend.registrations_so_far()), (0, 2));
    }
    let backend = faulty();
    backend.set_notifications(Spurious);
    assert!(timeout(MS, backend.notified(&key())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn capabilities_can_be_switched_off_one_by_one() {
    let shown = |backend: FaultyBackend| {
        let it = backend.capabilities();
        let notifications = (it.sends_notifications(), it.receives_notifications());
        (notifications, it.supports_handoff(), it.publishes())
    };
    assert_eq!(shown(faulty()), ((true, true), true, true));
    assert_eq!(shown(faulty().without_notifications()), ((false, false), true, true));
    assert_eq!(shown(faulty().with_sent_notifications_only()), ((true, false), true, true));
    assert_eq!(shown(faulty().without_handoff()), ((true, true), false, true));
    assert_eq!(shown(faulty().without_publishing()), ((true, true), true, false));
    let sends = faulty().with_sent_notifications_only().without_handoff().without_publishing();
    assert_eq!(shown(sends.clone()), ((true, false), false, false));
    assert_eq!(sends.capabilities().clock(), Clock::Server);

    let lease = take(&sends).await.unwrap();
    let receiver = LockId::random().unwrap();
    let refused = sends.handoff(&lease, &receiver, ttl()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Internal);
    let publication = Publication::new(lease.fence(), "node", "value").unwrap();
    let refused = sends.publish(&lease, &publication, ttl()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Internal);
    let notified = sends.notified(&key());
    sends.release(&lease).await.unwrap();
    assert!(timeout(MS, notified).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn leases_end_at_their_ttl_if_the_wrapped_backend_says_so() {
    for ends_at_ttl in [false, true] {
        let memory = MemoryBackend::new();
        let memory = if ends_at_ttl { memory.with_end_at_ttl() } else { memory };
        let backend = FaultyBackend::new(memory).without_handoff();
        assert_eq!(backend.capabilities().ends_at_ttl(), ends_at_ttl);
        let (id, ttl) = (LockId::random().unwrap(), Ttl::try_from(100 * MS).unwrap());
        backend.acquire(&key(), &id, ttl).await.unwrap();
        sleep(90 * MS).await;
        assert!(is_held(&backend).await);
        sleep(20 * MS).await;
        assert_eq!(is_held(&backend).await, !ends_at_ttl);
        sleep(1_000 * MS).await;
        assert!(!is_held(&backend).await);
    }
}

#[tokio::test(start_paused = true)]
async fn faults_and_records_include_what_leaders_publish() {
    let backend = faulty();
    let lease = take(&backend).await.unwrap();
    let publication = Publication::new(lease.fence(), "node", "value").unwrap();
    let published = async || backend.inner().published(&key()).await.unwrap();

    backend.next(Operation::Publish, Fault::Fail(ErrorCode::RateLimited));
    let failed = backend.publish(&lease, &publication, ttl()).await.unwrap_err();
    assert_eq!((failed.code(), published().await), (ErrorCode::RateLimited, None));
    backend.next(Operation::Publish, Fault::LoseReply(ErrorCode::NetworkTimeout));
    assert!(backend.publish(&lease, &publication, ttl()).await.is_err());
    assert_eq!(published().await.as_ref(), Some(&publication));

    backend.next(Operation::Published, Fault::Fail(ErrorCode::Internal));
    assert!(backend.published(&key()).await.is_err());
    assert_eq!(backend.published(&key()).await.unwrap(), Some(publication));

    backend.next(Operation::Withdraw, Fault::Fail(ErrorCode::Internal));
    assert!(backend.withdraw(&lease).await.is_err() && published().await.is_some());
    backend.withdraw(&lease).await.unwrap();
    assert_eq!(published().await, None);

    let ids = |operation| {
        let calls = backend.calls(operation);
        calls.iter().map(|call| call.id().cloned()).collect::<Vec<_>>()
    };
    let id = Some(lease.id().clone());
    assert_eq!(ids(Operation::Publish), [id.clone(), id.clone()]);
    assert_eq!(ids(Operation::Withdraw), [id.clone(), id]);
    assert_eq!(ids(Operation::Published), [None, None]);
}

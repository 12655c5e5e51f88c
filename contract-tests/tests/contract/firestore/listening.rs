//! Notifications: a Listen stream on the documents of locks.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use syncguard_firestore::gcloud_sdk::RequestTimeouts;
use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, Backoff, FirestoreBackend, Lease, LockManager};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::proxy::{LISTEN, Proxy, Verdict};
use super::raw::Raw;
use super::{Emulator, LIMIT, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl};
use crate::log::{Log, logging};

cases![
    w_a_release_notifies,
    w_a_plain_delete_notifies,
    w_a_release_before_the_stream_is_open_notifies,
    w_a_renewal_wakes_no_waiter,
    w_no_stream_without_notifications_or_without_waiters,
    w_one_stream_serves_many_keys,
    w_a_target_is_removed_with_its_last_waiter,
    w_a_target_stays_until_a_notified_waiter_is_dropped,
    w_a_cut_stream_is_opened_again,
    w_a_stream_without_an_answer_is_replaced,
    w_a_timeout_of_the_client_does_not_end_the_stream,
    w_dropping_the_last_clone_ends_the_stream,
    w_another_runtime_takes_over,
    w_a_waiter_is_served_by_timer_if_listening_is_refused,
    w_an_outage_is_one_warning,
    w_streams_that_end_early_are_one_warning,
];

/// Returns a proxy, and a backend behind it that receives notifications. Other clients connect
/// without the proxy.
async fn listening(emulator: &Emulator) -> (Proxy, FirestoreBackend) {
    let proxy = Proxy::before(&emulator.address);
    let waiting = builder(&proxy.address()).notifications(true).connect(PROJECT).await.unwrap();
    (proxy, waiting)
}

async fn take(backend: &FirestoreBackend) -> Lease {
    granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await)
}

/// Releases a lease after a stream was cut.
///
/// The emulator applies the commit, but reports an error because it cannot notify the cut stream.
async fn give_back(backend: &FirestoreBackend, lease: &Lease) {
    if backend.release(lease).await.is_err() {
        assert_eq!(backend.get(lease.key()).await.unwrap(), None);
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

type Notification = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns a notification that only later changes can trigger, and that misses none of them.
async fn settled(proxy: &Proxy, waiting: &FirestoreBackend, lease: &Lease) -> Notification {
    let mut first = pin!(waiting.notified(lease.key()));
    first.as_mut().await;
    renew(proxy, waiting, lease).await;
    // `first` is dropped after the next registration, so the target stays.
    Box::pin(waiting.notified(lease.key()))
}

/// Renews a lease until the server reports the change.
///
/// The emulator can lose a change at the moment at which a target is added. After it has reported
/// one change, it loses no more.
async fn renew(proxy: &Proxy, backend: &FirestoreBackend, lease: &Lease) {
    let before = proxy.overheard.changes();
    let reported = || until(|| proxy.overheard.changes() > before);
    loop {
        backend.extend_by_id(lease.id(), ttl(LONG)).await.unwrap().unwrap();
        if timeout(Duration::from_secs(1), reported()).await.is_ok() {
            return;
        }
    }
}

/// Cuts the open stream.
async fn cut(proxy: &mut Proxy) {
    let before = proxy.overheard.ended();
    proxy.cut();
    until(|| proxy.overheard.ended() > before).await;
}

fn is_pending(notification: Pin<&mut (impl Future<Output = ()> + ?Sized)>) -> bool {
    notification.poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending
}

fn streams_opened(proxy: &Proxy) -> usize {
    proxy.seen().iter().filter(|method| *method == LISTEN).count()
}

async fn w_a_release_notifies(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    for _ in 0..3 {
        let lease = take(&other).await;
        let notification = settled(&proxy, &waiting, &lease).await;
        assert!(other.release(&lease).await.unwrap());
        notification.await;
    }
}

/// Other clients delete the document without knowing about notifications.
async fn w_a_plain_delete_notifies(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let notification = settled(&proxy, &waiting, &lease).await;
    emulator.raw().await.delete(&format!("locks/{}", lease.key().as_str())).await;
    notification.await;
}

async fn w_a_release_before_the_stream_is_open_notifies(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let open = Arc::new(Notify::new());
    proxy.judge_next(LISTEN, [Verdict::Wait(open.clone())]);
    let notification = waiting.notified(lease.key());
    assert!(waiting.release(&lease).await.unwrap());
    open.notify_one();
    notification.await;
}

async fn w_a_renewal_wakes_no_waiter(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let mut notification = settled(&proxy, &waiting, &lease).await;
    for _ in 0..3 {
        renew(&proxy, &other, &lease).await;
    }
    // This notification arrives later on the same stream, so the renewals have arrived too.
    waiting.notified(&fresh_key()).await;
    assert!(is_pending(notification.as_mut()));
    assert!(other.release_by_id(lease.id()).await.unwrap());
    notification.await;
}

async fn w_no_stream_without_notifications_or_without_waiters(emulator: Emulator) {
    let (proxy, without) = emulator.through_proxy().await;
    assert!(!without.capabilities().receives_notifications());
    let lease = take(&without).await;
    let notification = without.notified(lease.key());
    assert!(without.release(&lease).await.unwrap());
    assert!(is_pending(pin!(notification)));
    assert_eq!(streams_opened(&proxy), 0);

    let (proxy, with) = listening(&emulator).await;
    assert!(with.capabilities().receives_notifications());
    let locks = LockManager::new(with);
    let guard = locks.lock(fresh_key()).acquire().await.unwrap();
    assert!(guard.release().await.unwrap());
    assert_eq!(streams_opened(&proxy), 0);
}

async fn w_one_stream_serves_many_keys(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let mut waits = Vec::new();
    for _ in 0..30 {
        let lease = take(&other).await;
        waits.push((settled(&proxy, &waiting.clone(), &lease).await, lease));
    }
    assert_eq!(proxy.overheard.targets(), 30);
    assert_eq!(proxy.overheard.open(), 1);
    for (notification, lease) in &mut waits {
        assert!(other.release(lease).await.unwrap());
        notification.await;
    }
    assert_eq!(proxy.overheard.open(), 1);
}

async fn w_a_target_is_removed_with_its_last_waiter(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let (one, two) = (take(&waiting).await, take(&waiting).await);
    let first = settled(&proxy, &waiting, &one).await;
    let mut second = Box::pin(waiting.notified(one.key()));
    let other = settled(&proxy, &waiting, &two).await;
    assert_eq!(proxy.overheard.targets(), 2);
    drop((first, other));
    until(|| proxy.overheard.targets() == 1).await;
    assert!(is_pending(second.as_mut()));
    assert!(waiting.release(&one).await.unwrap());
    second.await;

    // The stream stays open for the next waiters.
    until(|| proxy.overheard.targets() == 0).await;
    let again = settled(&proxy, &waiting, &two).await;
    assert!(waiting.release(&two).await.unwrap());
    again.await;
    assert_eq!(proxy.overheard.ended(), 0);
}

/// A waiter that was notified registers again before it drops the old registration, and so keeps
/// the target.
async fn w_a_target_stays_until_a_notified_waiter_is_dropped(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let mut notified = Box::pin(waiting.notified(&fresh_key()));
    notified.as_mut().await;
    // This notification arrives later on the same stream.
    let mut notified_later = Box::pin(waiting.notified(&fresh_key()));
    notified_later.as_mut().await;
    assert_eq!(proxy.overheard.targets(), 2);
    drop((notified, notified_later));
    until(|| proxy.overheard.targets() == 0).await;
}

async fn w_a_cut_stream_is_opened_again(emulator: Emulator) {
    let (mut proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let (one, two) = (take(&other).await, take(&other).await);
    let of_one = settled(&proxy, &waiting, &one).await;
    let mut of_two = settled(&proxy, &waiting, &two).await;
    proxy.judge_next(LISTEN, [Verdict::Refuse(Code::Unavailable)]);
    cut(&mut proxy).await;
    give_back(&other, &one).await;
    // All waiters are woken, because releases in the meantime caused no notification.
    of_one.await;
    of_two.as_mut().await;
    renew(&proxy, &other, &two).await;
    let notification = waiting.notified(two.key());
    assert!(other.release(&two).await.unwrap());
    notification.await;
    assert!(streams_opened(&proxy) >= 3);
}

async fn w_a_stream_without_an_answer_is_replaced(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let hasty = builder(&proxy.address()).command_timeout(Duration::from_secs(1));
    let waiting = hasty.notifications(true).connect(PROJECT).await.unwrap();
    proxy.judge_next(LISTEN, [Verdict::Hang]);
    waiting.notified(&fresh_key()).await;
    assert!(streams_opened(&proxy) >= 2);
}

async fn w_a_timeout_of_the_client_does_not_end_the_stream(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let limit = Duration::from_secs(1);
    let Raw(client) = Raw::connect(&proxy.address()).await;
    let client = client.with_request_timeouts(RequestTimeouts::new().with_total(limit));
    let patient = FirestoreBackend::builder().command_timeout(LIMIT);
    let waiting = patient.notifications(true).build(PROJECT, &client).unwrap();
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let mut first = pin!(waiting.notified(lease.key()));
    first.as_mut().await;
    assert!(proxy.limits().is_empty(), "the stream was sent with a timeout");
    sleep(limit + Duration::from_millis(500)).await;
    let notification = waiting.notified(lease.key());
    assert!(other.release(&lease).await.unwrap());
    notification.await;
    assert_eq!(streams_opened(&proxy), 1);
}

async fn w_dropping_the_last_clone_ends_the_stream(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let last = waiting.clone();
    let notification = settled(&proxy, &waiting, &lease).await;
    drop(waiting);
    assert!(other.release(&lease).await.unwrap());
    notification.await;
    assert_eq!(proxy.overheard.ended(), 0);
    drop(last);
    until(|| proxy.overheard.ended() == 1).await;
}

async fn w_another_runtime_takes_over(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let elsewhere = Runtime::new().unwrap();
    let first = {
        let _inside = elsewhere.enter();
        waiting.notified(lease.key())
    };
    first.await;
    elsewhere.shutdown_background();
    until(|| proxy.overheard.ended() == 1).await;
    let mut notifications = Vec::new();
    while proxy.overheard.targets() == 0 {
        // A waiter does this after each attempt.
        notifications.push(Box::pin(waiting.notified(lease.key())));
        sleep(Duration::from_millis(20)).await;
    }
    notifications[0].as_mut().await;
    renew(&proxy, &other, &lease).await;
    let notification = waiting.notified(lease.key());
    assert!(other.release(&lease).await.unwrap());
    notification.await;
}

async fn w_a_waiter_is_served_by_timer_if_listening_is_refused(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let refused = refuse(&proxy, Code::PermissionDenied);
    let lease = take(&waiting).await;
    let locks = LockManager::new(waiting.clone());
    let request = locks.lock(lease.key()).wait(LIMIT);
    let request = request.backoff(Backoff::fixed(Duration::from_millis(50)));
    let release = async {
        until(|| refused.load(Ordering::Relaxed) > 0).await;
        waiting.release(&lease).await
    };
    let (guard, released) = tokio::join!(request.acquire(), release);
    assert!(released.unwrap());
    assert!(guard.unwrap().release().await.unwrap());
}

/// Makes the proxy refuse Listen streams, and counts the refusals.
fn refuse(proxy: &Proxy, code: Code) -> Arc<AtomicUsize> {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    proxy.judge(move |method| match method {
        LISTEN => {
            count.fetch_add(1, Ordering::Relaxed);
            Verdict::Refuse(code)
        }
        _ => Verdict::Pass,
    });
    refused
}

async fn w_an_outage_is_one_warning(emulator: Emulator) {
    let trial = move |log: Log| async move {
        let (mut proxy, waiting) = listening(&emulator).await;
        let lease = take(&waiting).await;
        waiting.notified(lease.key()).await;
        cut(&mut proxy).await;
        waiting.notified(lease.key()).await;
        assert_eq!(log.warnings(), [""; 0], "a warning about a single stream that ended");

        let refused = refuse(&proxy, Code::PermissionDenied);
        let _notification = waiting.notified(lease.key());
        cut(&mut proxy).await;
        until(|| refused.load(Ordering::Relaxed) >= 3).await;
        assert_eq!(log.warnings().len(), 1);
    };
    in_time(trial).await;
}

/// Simulates a firewall that cuts connections it takes for idle.
async fn w_streams_that_end_early_are_one_warning(emulator: Emulator) {
    let trial = move |log: Log| async move {
        let (mut proxy, waiting) = listening(&emulator).await;
        let key = fresh_key();
        waiting.notified(&key).await;
        let start = Instant::now();
        for _ in 1..=4 {
            cut(&mut proxy).await;
            waiting.notified(&key).await;
        }
        // The pauses are at least half of 100, 200, 400 and 800 ms.
        assert!(start.elapsed() >= Duration::from_millis(750), "{:?}", start.elapsed());
        assert_eq!(log.warnings().len(), 1);
    };
    in_time(trial).await;
}

/// Runs a trial with a log on a thread of its own. The timeout runs on that thread too.
async fn in_time<F: Future<Output = ()>>(trial: impl FnOnce(Log) -> F + Send + 'static) {
    logging("syncguard_firestore", |log| timeout(LIMIT, trial(log))).await.unwrap();
}

//! Notifications: a stream that listens to the documents of locks.

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
    w_a_release_is_told,
    w_a_plain_delete_is_told,
    w_a_release_before_the_stream_is_open_is_told,
    w_a_renewal_wakes_nobody,
    w_no_stream_without_notifications_or_without_waiters,
    w_one_stream_for_many_keys,
    w_targets_go_with_those_who_wait,
    w_a_target_stays_as_long_as_one_who_was_told,
    w_a_stream_that_was_cut_is_opened_again,
    w_a_stream_that_is_not_answered_is_given_up,
    w_a_limit_of_the_client_does_not_end_the_stream,
    w_the_last_clone_ends_the_stream,
    w_a_runtime_that_is_gone_is_replaced,
    w_waiting_goes_on_by_timer_where_listening_is_refused,
    w_an_outage_is_one_warning,
    w_streams_that_end_early_are_an_outage,
];

/// A proxy, and a backend behind it that gets notifications. Whoever else there is comes another
/// way.
async fn listening(emulator: &Emulator) -> (Proxy, FirestoreBackend) {
    let proxy = Proxy::before(&emulator.address);
    let waiting = builder(&proxy.address()).notifications(true).connect().await.unwrap();
    (proxy, waiting)
}

async fn take(backend: &FirestoreBackend) -> Lease {
    granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await)
}

/// Releases, also where a stream was cut: the emulator then fails the commit that it wanted to tell
/// of there, although it is applied.
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

/// A notification that comes with nothing but what happens from now on, and is told of all that
/// does.
async fn settled(proxy: &Proxy, waiting: &FirestoreBackend, lease: &Lease) -> Notification {
    let mut first = pin!(waiting.notified(lease.key()));
    first.as_mut().await;
    renew(proxy, waiting, lease).await;
    // The first one still waits, so that the target stays.
    Box::pin(waiting.notified(lease.key()))
}

/// Renews a lease until that is told. The emulator can lose a change that comes just when a target
/// is put in place, but none of those that follow one it has told.
async fn renew(proxy: &Proxy, backend: &FirestoreBackend, lease: &Lease) {
    let before = proxy.overheard.changes();
    let told = || until(|| proxy.overheard.changes() > before);
    loop {
        backend.extend_by_id(lease.id(), ttl(LONG)).await.unwrap().unwrap();
        if timeout(Duration::from_secs(1), told()).await.is_ok() {
            return;
        }
    }
}

/// Cuts the stream that is open.
async fn cut(proxy: &mut Proxy) {
    let before = proxy.overheard.ended();
    proxy.cut();
    until(|| proxy.overheard.ended() > before).await;
}

fn is_pending(notification: Pin<&mut (impl Future<Output = ()> + ?Sized)>) -> bool {
    notification.poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending
}

fn streams_asked_for(proxy: &Proxy) -> usize {
    proxy.seen().iter().filter(|method| *method == LISTEN).count()
}

async fn w_a_release_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    for _ in 0..3 {
        let lease = take(&other).await;
        let notification = settled(&proxy, &waiting, &lease).await;
        assert!(other.release(&lease).await.unwrap());
        notification.await;
    }
}

/// As other clients do it, which know nothing of notifications.
async fn w_a_plain_delete_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let notification = settled(&proxy, &waiting, &lease).await;
    emulator.raw().await.delete(&format!("locks/{}", lease.key().as_str())).await;
    notification.await;
}

async fn w_a_release_before_the_stream_is_open_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let open = Arc::new(Notify::new());
    proxy.judge_next(LISTEN, [Verdict::Wait(open.clone())]);
    let notification = waiting.notified(lease.key());
    assert!(waiting.release(&lease).await.unwrap());
    open.notify_one();
    notification.await;
}

async fn w_a_renewal_wakes_nobody(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let mut notification = settled(&proxy, &waiting, &lease).await;
    for _ in 0..3 {
        renew(&proxy, &other, &lease).await;
    }
    // This is told later on the same stream, so all that was heard.
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
    assert_eq!(streams_asked_for(&proxy), 0);

    let (proxy, with) = listening(&emulator).await;
    assert!(with.capabilities().receives_notifications());
    let locks = LockManager::new(with);
    let guard = locks.lock(fresh_key()).acquire().await.unwrap();
    assert!(guard.release().await.unwrap());
    assert_eq!(streams_asked_for(&proxy), 0);
}

async fn w_one_stream_for_many_keys(emulator: Emulator) {
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

async fn w_targets_go_with_those_who_wait(emulator: Emulator) {
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

    // The stream stays for those who come next.
    until(|| proxy.overheard.targets() == 0).await;
    let again = settled(&proxy, &waiting, &two).await;
    assert!(waiting.release(&two).await.unwrap());
    again.await;
    assert_eq!(proxy.overheard.ended(), 0);
}

/// Whoever was told asks again before giving up the interest, and so keeps the target.
async fn w_a_target_stays_as_long_as_one_who_was_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let mut told = Box::pin(waiting.notified(&fresh_key()));
    told.as_mut().await;
    // This is told later on the same stream.
    let mut told_later = Box::pin(waiting.notified(&fresh_key()));
    told_later.as_mut().await;
    assert_eq!(proxy.overheard.targets(), 2);
    drop((told, told_later));
    until(|| proxy.overheard.targets() == 0).await;
}

async fn w_a_stream_that_was_cut_is_opened_again(emulator: Emulator) {
    let (mut proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let (one, two) = (take(&other).await, take(&other).await);
    let of_one = settled(&proxy, &waiting, &one).await;
    let mut of_two = settled(&proxy, &waiting, &two).await;
    proxy.judge_next(LISTEN, [Verdict::Refuse(Code::Unavailable)]);
    cut(&mut proxy).await;
    give_back(&other, &one).await;
    // All are woken: of what happened in the meantime nobody was told.
    of_one.await;
    of_two.as_mut().await;
    renew(&proxy, &other, &two).await;
    let notification = waiting.notified(two.key());
    assert!(other.release(&two).await.unwrap());
    notification.await;
    assert!(streams_asked_for(&proxy) >= 3);
}

async fn w_a_stream_that_is_not_answered_is_given_up(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let hasty = builder(&proxy.address()).time_limit(Duration::from_secs(1));
    let waiting = hasty.notifications(true).connect().await.unwrap();
    proxy.judge_next(LISTEN, [Verdict::Hang]);
    waiting.notified(&fresh_key()).await;
    assert!(streams_asked_for(&proxy) >= 2);
}

async fn w_a_limit_of_the_client_does_not_end_the_stream(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let limit = Duration::from_secs(1);
    let Raw(client) = Raw::connect(&proxy.address()).await;
    let client = client.with_request_timeouts(RequestTimeouts::new().with_total(limit));
    let patient = FirestoreBackend::builder(PROJECT).time_limit(LIMIT);
    let waiting = patient.notifications(true).build(client).unwrap();
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let mut first = pin!(waiting.notified(lease.key()));
    first.as_mut().await;
    assert!(proxy.limits().is_empty(), "the server was given a limit");
    sleep(limit + Duration::from_millis(500)).await;
    let notification = waiting.notified(lease.key());
    assert!(other.release(&lease).await.unwrap());
    notification.await;
    assert_eq!(streams_asked_for(&proxy), 1);
}

async fn w_the_last_clone_ends_the_stream(emulator: Emulator) {
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

async fn w_a_runtime_that_is_gone_is_replaced(emulator: Emulator) {
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
        // As one who waits does after each attempt.
        notifications.push(Box::pin(waiting.notified(lease.key())));
        sleep(Duration::from_millis(20)).await;
    }
    notifications[0].as_mut().await;
    renew(&proxy, &other, &lease).await;
    let notification = waiting.notified(lease.key());
    assert!(other.release(&lease).await.unwrap());
    notification.await;
}

async fn w_waiting_goes_on_by_timer_where_listening_is_refused(emulator: Emulator) {
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

/// Refuses to listen, and counts how often.
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
    let outages = move |log: Log| async move {
        let (mut proxy, waiting) = listening(&emulator).await;
        let lease = take(&waiting).await;
        waiting.notified(lease.key()).await;
        cut(&mut proxy).await;
        waiting.notified(lease.key()).await;
        assert_eq!(log.warnings(), [""; 0], "a stream that ends is no outage");

        let refused = refuse(&proxy, Code::PermissionDenied);
        let _notification = waiting.notified(lease.key());
        cut(&mut proxy).await;
        until(|| refused.load(Ordering::Relaxed) >= 3).await;
        assert_eq!(log.warnings().len(), 1);
    };
    in_time(outages).await;
}

/// As behind something that cuts what it takes for an idle connection.
async fn w_streams_that_end_early_are_an_outage(emulator: Emulator) {
    let cuts = move |log: Log| async move {
        let (mut proxy, waiting) = listening(&emulator).await;
        let key = fresh_key();
        waiting.notified(&key).await;
        let begun = Instant::now();
        for _ in 1..=4 {
            cut(&mut proxy).await;
            waiting.notified(&key).await;
        }
        // At least half of 100, 200, 400 and 800 ms.
        assert!(begun.elapsed() >= Duration::from_millis(750), "{:?}", begun.elapsed());
        assert_eq!(log.warnings().len(), 1);
    };
    in_time(cuts).await;
}

/// With its log, on a thread that nobody else can stop.
async fn in_time<F: Future<Output = ()>>(trial: impl FnOnce(Log) -> F + Send + 'static) {
    logging("syncguard_firestore", |log| timeout(LIMIT, trial(log))).await.unwrap();
}

//! Hints: a stream that listens to the documents of locks.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use syncguard_firestore::gcloud_sdk::RequestTimeouts;
use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, Backoff, FirestoreBackend, Key, Lease, LockManager};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::proxy::{LISTEN, Proxy, Verdict};
use super::raw::Raw;
use super::{Emulator, LIMIT, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl};

cases![
    w_a_release_is_told,
    w_a_plain_delete_is_told,
    w_a_release_before_the_stream_is_open_is_told,
    w_nobody_is_woken_while_the_lock_is_there,
    w_no_stream_without_hints_or_without_waiters,
    w_one_stream_for_many_keys,
    w_targets_go_with_those_who_wait,
    w_a_stream_that_was_cut_is_opened_again,
    w_a_stream_that_is_not_answered_is_given_up,
    w_a_limit_of_the_client_does_not_end_the_stream,
    w_the_last_clone_ends_the_stream,
    w_a_runtime_that_is_gone_is_replaced,
    w_waiting_goes_on_by_timer_where_listening_is_refused,
    w_an_outage_is_one_warning,
];

/// A proxy, and a backend behind it that gets hints. Whoever else there is comes another way.
async fn listening(emulator: &Emulator) -> (Proxy, FirestoreBackend) {
    let proxy = Proxy::before(&emulator.address);
    let waiting = builder(&proxy.address()).hints(true).connect().await.unwrap();
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

/// Waits until the target of a key is in place.
async fn listened(proxy: &Proxy, key: &Key) {
    until(|| proxy.overheard.listened([key]) == 1).await;
}

fn is_pending(hint: Pin<&mut impl Future<Output = ()>>) -> bool {
    hint.poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending
}

fn streams_asked_for(proxy: &Proxy) -> usize {
    proxy.seen().iter().filter(|method| *method == LISTEN).count()
}

async fn w_a_release_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    for _ in 0..3 {
        let lease = take(&other).await;
        let hint = waiting.maybe_free(lease.key());
        listened(&proxy, lease.key()).await;
        assert!(other.release(&lease).await.unwrap());
        hint.await;
    }
}

/// As other clients do it, which know nothing of hints.
async fn w_a_plain_delete_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let hint = waiting.maybe_free(lease.key());
    listened(&proxy, lease.key()).await;
    emulator.raw().await.delete(&format!("locks/{}", lease.key().as_str())).await;
    hint.await;
}

async fn w_a_release_before_the_stream_is_open_is_told(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let lease = take(&waiting).await;
    let open = Arc::new(Notify::new());
    proxy.judge_next(LISTEN, [Verdict::Wait(open.clone())]);
    let hint = waiting.maybe_free(lease.key());
    assert!(waiting.release(&lease).await.unwrap());
    open.notify_one();
    hint.await;
}

/// Neither when the target is in place, nor by a renewal.
async fn w_nobody_is_woken_while_the_lock_is_there(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let mut hint = pin!(waiting.maybe_free(lease.key()));
    listened(&proxy, lease.key()).await;
    for renewals in 1..=3 {
        other.extend_by_id(lease.id(), ttl(LONG)).await.unwrap().unwrap();
        until(|| proxy.overheard.changes() == 1 + renewals).await;
    }
    // What comes after all that on the same stream was heard, so all that was heard.
    waiting.maybe_free(&fresh_key()).await;
    assert!(is_pending(hint.as_mut()));
    assert!(other.release_by_id(lease.id()).await.unwrap());
    hint.await;
}

async fn w_no_stream_without_hints_or_without_waiters(emulator: Emulator) {
    let (proxy, without) = emulator.through_proxy().await;
    assert!(!without.capabilities().pushes_hints());
    let lease = take(&without).await;
    let hint = without.maybe_free(lease.key());
    assert!(without.release(&lease).await.unwrap());
    assert!(is_pending(pin!(hint)));
    assert_eq!(streams_asked_for(&proxy), 0);

    let (proxy, with) = listening(&emulator).await;
    assert!(with.capabilities().pushes_hints());
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
        // By turns through one clone and another.
        waits.push((waiting.clone().maybe_free(lease.key()), lease));
    }
    until(|| proxy.overheard.listened(waits.iter().map(|(_, lease)| lease.key())) == 30).await;
    for (hint, lease) in waits {
        assert!(other.release(&lease).await.unwrap());
        hint.await;
    }
    assert_eq!(streams_asked_for(&proxy), 1);
}

async fn w_targets_go_with_those_who_wait(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let (one, two) = (take(&waiting).await, take(&waiting).await);
    let hints = [waiting.maybe_free(one.key()), waiting.maybe_free(one.key())];
    let other = waiting.maybe_free(two.key());
    until(|| proxy.overheard.listened([one.key(), two.key()]) == 2).await;
    assert_eq!(proxy.overheard.targets(), 2);

    let [first, second] = hints;
    drop(first);
    drop(other);
    until(|| proxy.overheard.targets() == 1).await;
    assert_eq!(proxy.overheard.listened([one.key()]), 1);
    drop(second);
    until(|| proxy.overheard.targets() == 0).await;

    // The stream stays for those who come next.
    let again = waiting.maybe_free(one.key());
    listened(&proxy, one.key()).await;
    assert!(waiting.release(&one).await.unwrap());
    again.await;
    assert_eq!(streams_asked_for(&proxy), 1);
}

async fn w_a_stream_that_was_cut_is_opened_again(emulator: Emulator) {
    let (mut proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let (one, two) = (take(&other).await, take(&other).await);
    let hint_of_one = waiting.maybe_free(one.key());
    let mut hint_of_two = pin!(waiting.maybe_free(two.key()));
    until(|| proxy.overheard.listened([one.key(), two.key()]) == 2).await;

    proxy.judge_next(LISTEN, [Verdict::Refuse(Code::Unavailable)]);
    proxy.cut();
    until(|| proxy.overheard.streams() == 0).await;
    give_back(&other, &one).await;
    hint_of_one.await;

    listened(&proxy, two.key()).await;
    assert!(is_pending(hint_of_two.as_mut()), "its lock was there all the time");
    give_back(&other, &two).await;
    hint_of_two.await;
}

async fn w_a_stream_that_is_not_answered_is_given_up(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let hasty = builder(&proxy.address()).time_limit(Duration::from_secs(1));
    let waiting = hasty.hints(true).connect().await.unwrap();
    let lease = take(&emulator.backend().await).await;
    proxy.judge_next(LISTEN, [Verdict::Hang]);
    let _hint = waiting.maybe_free(lease.key());
    listened(&proxy, lease.key()).await;
    assert!(streams_asked_for(&proxy) >= 2);
}

async fn w_a_limit_of_the_client_does_not_end_the_stream(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let limit = Duration::from_secs(1);
    let Raw(client) = Raw::connect(&proxy.address()).await;
    let client = client.with_request_timeouts(RequestTimeouts::new().with_total(limit));
    let patient = FirestoreBackend::builder(PROJECT).time_limit(LIMIT);
    let waiting = patient.hints(true).build(client).unwrap();
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let hint = waiting.maybe_free(lease.key());
    listened(&proxy, lease.key()).await;
    assert!(proxy.limits().is_empty(), "the server was given a limit");
    sleep(limit + Duration::from_millis(500)).await;
    assert!(other.release(&lease).await.unwrap());
    hint.await;
    assert_eq!(streams_asked_for(&proxy), 1);
}

async fn w_the_last_clone_ends_the_stream(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let (one, two) = (take(&other).await, take(&other).await);
    let last = waiting.clone();
    let hints = [waiting.maybe_free(one.key()), waiting.maybe_free(two.key())];
    until(|| proxy.overheard.listened([one.key(), two.key()]) == 2).await;
    drop(waiting);
    let [hint_of_one, _hint_of_two] = hints;
    assert!(other.release(&one).await.unwrap());
    hint_of_one.await;
    assert_eq!(proxy.overheard.streams(), 1);
    drop(last);
    until(|| proxy.overheard.streams() == 0).await;
}

async fn w_a_runtime_that_is_gone_is_replaced(emulator: Emulator) {
    let (proxy, waiting) = listening(&emulator).await;
    let other = emulator.backend().await;
    let lease = take(&other).await;
    let elsewhere = Runtime::new().unwrap();
    let mut hints = {
        let _inside = elsewhere.enter();
        vec![waiting.maybe_free(lease.key())]
    };
    listened(&proxy, lease.key()).await;
    elsewhere.shutdown_background();
    until(|| proxy.overheard.streams() == 0).await;
    while proxy.overheard.listened([lease.key()]) == 0 {
        // As one who waits does after each attempt.
        hints.push(waiting.maybe_free(lease.key()));
        sleep(Duration::from_millis(20)).await;
    }
    give_back(&other, &lease).await;
    for hint in hints {
        hint.await;
    }
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
    // On a thread of its own, whose log is read.
    let outages = move || {
        let warnings = Arc::new(AtomicUsize::new(0));
        let _here = tracing::subscriber::set_default(Warnings(warnings.clone()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut proxy, waiting) = listening(&emulator).await;
            let lease = take(&waiting).await;
            let refused = refuse(&proxy, Code::PermissionDenied);
            let _hint = waiting.maybe_free(lease.key());
            until(|| refused.load(Ordering::Relaxed) == 3).await;
            assert_eq!(warnings.load(Ordering::Relaxed), 1);
            proxy.judge(|_| Verdict::Pass);
            listened(&proxy, lease.key()).await;

            proxy.cut();
            until(|| proxy.overheard.streams() == 0).await;
            listened(&proxy, lease.key()).await;
            assert_eq!(warnings.load(Ordering::Relaxed), 1, "a stream that ends is no outage");

            let refused = refuse(&proxy, Code::Unavailable);
            proxy.cut();
            until(|| refused.load(Ordering::Relaxed) == 3).await;
            assert_eq!(warnings.load(Ordering::Relaxed), 2);
        });
    };
    let outages = tokio::task::spawn_blocking(outages);
    timeout(LIMIT, outages).await.expect("the trial hangs").unwrap();
}

/// Counts the warnings of the backend.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("syncguard_firestore")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

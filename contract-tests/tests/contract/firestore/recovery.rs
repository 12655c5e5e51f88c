//! What happens when a connection falls silent or breaks, or the server is away. With default settings,
//! and the same backend before and after.

use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use syncguard_core::Sent;
use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{
    Backend, Error, ErrorCode, FirestoreBackend, FirestoreBackendBuilder, LockManager, Operation,
};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::proxy::{COMMIT, Proxy, READ, Verdict};
use super::{Emulator, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl};

cases![
    c1_an_acquire_is_marked_when_its_commit_is_sent,
    c1_no_acquire_is_marked_while_nobody_listens,
    f1_a_silent_connection_costs_one_request,
    f1_a_silent_connection_is_replaced_for_callers_that_give_up,
    f1_a_kept_lease_of_ten_seconds_survives_a_silent_connection,
    f1_a_waiter_is_notified_after_a_silent_connection,
    f1_callers_that_give_up_leave_no_work_behind,
    f2_an_error_that_is_not_listed_closes_the_connection,
    f3_a_backend_outlives_the_runtime_that_made_it,
    f3_a_client_whose_runtime_has_ended_is_a_clear_error,
];

/// Returns a builder with default settings.
fn defaults(port: u16) -> FirestoreBackendBuilder {
    FirestoreBackend::builder().emulator(format!("127.0.0.1:{port}"))
}

/// Connects with default settings through a forwarder, and waits until the emulator answers in time.
async fn forwarded(emulator: &Emulator) -> (Forwarder, FirestoreBackend) {
    let forwarder = Forwarder::to(&emulator.address).await.unwrap();
    let backend = defaults(forwarder.port()).connect(PROJECT).await.unwrap();
    while backend.get(&fresh_key()).await.is_err() {}
    (forwarder, backend)
}

async fn c1_an_acquire_is_marked_when_its_commit_is_sent(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let (key, id, sent) = (fresh_key(), fresh_id(), Sent::default());
    for (method, marked) in [(READ, false), (COMMIT, true)] {
        proxy.judge_next(method, [Verdict::Hang]);
        let arrived = async {
            while !proxy.seen().iter().any(|seen| seen == method) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            acquired = backend.acquire_marking(&key, &id, ttl(LONG), &sent) => panic!("{acquired:?}"),
            () = arrived => {}
        }
        assert_eq!(sent.is_marked(), marked, "{method}");
    }
}

async fn c1_no_acquire_is_marked_while_nobody_listens(emulator: Emulator) {
    let (forwarder, backend) = forwarded(&emulator).await;
    backend.get(&fresh_key()).await.unwrap();
    drop(forwarder);
    for _ in 0..20 {
        let sent = Sent::default();
        let acquired = backend.acquire_marking(&fresh_key(), &fresh_id(), ttl(LONG), &sent).await;
        assert_eq!(acquired.unwrap_err().code(), ErrorCode::ServiceUnavailable);
        assert!(!sent.is_marked());
    }
}

/// How long a lookup takes on an emulator that is too slow for a trial with default settings. Such a trial
/// has 2.5 s for a new connection and the two requests of an operation.
const SLOW: Duration = Duration::from_millis(500);

/// Runs a trial with default settings, and again if it fails while the emulator is slow for another client
/// as well: such a failure says nothing about the connection of the trial.
async fn while_responsive(emulator: &Emulator, trial: impl AsyncFn() -> Result<(), Error>) {
    let other = emulator.backend().await;
    for _ in 0..3 {
        let (mut slowest, mut asked) = (Duration::ZERO, Instant::now());
        let probe = async {
            loop {
                asked = Instant::now();
                other.get(&fresh_key()).await.unwrap();
                slowest = slowest.max(asked.elapsed());
                sleep(Duration::from_millis(100)).await;
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = trial() => outcome,
            never = probe => never,
        };
        let Err(error) = outcome else { return };
        let slowest = slowest.max(asked.elapsed());
        assert!(slowest >= SLOW, "{error}, with answers within {slowest:?}");
    }
    panic!("the emulator was too slow each time");
}

async fn f1_a_silent_connection_costs_one_request(emulator: Emulator) {
    while_responsive(&emulator, async || {
        let (forwarder, backend) = forwarded(&emulator).await;
        let patient = emulator.backend().await;
        let lease = granted(patient.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        let opened = forwarder.accepted();
        forwarder.silence_open();
        let silent = Instant::now();
        let lease = backend.extend(&lease, ttl(LONG)).await?.unwrap();
        let recovered = silent.elapsed();
        assert!(recovered < Duration::from_secs(5), "{recovered:?}");
        assert_eq!(forwarder.accepted(), opened + 1);
        // A release is not repeated, because its result would be unknown. The next call works.
        forwarder.silence_open();
        let error = backend.release(&lease).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
        assert!(backend.release(&lease).await?);
        assert_eq!(forwarder.accepted(), opened + 2);
        Ok(())
    })
    .await;
}

async fn f1_a_silent_connection_is_replaced_for_callers_that_give_up(emulator: Emulator) {
    while_responsive(&emulator, async || {
        let (forwarder, backend) = forwarded(&emulator).await;
        let key = fresh_key();
        let opened = forwarder.accepted();
        forwarder.silence_open();
        let silent = Instant::now();
        loop {
            let next = Instant::now() + Duration::from_secs(1);
            if matches!(timeout_at(next, backend.get(&key)).await, Ok(Ok(_))) {
                break;
            }
            sleep_until(next).await;
        }
        let recovered = silent.elapsed();
        // Not one for each caller: each takes half of the time limit to be found silent, or slow on a busy
        // machine.
        let replaced = recovered.as_millis() / 2_500;
        let accepted = forwarder.accepted() - opened;
        assert!(accepted >= 1 && accepted as u128 <= replaced, "{accepted} in {recovered:?}");
        if recovered < Duration::from_secs(6) {
            return Ok(());
        }
        let late = Error::new(ErrorCode::NetworkTimeout, Operation::Get);
        Err(late.with_message(format!("it took {recovered:?}")))
    })
    .await;
}

async fn f1_a_kept_lease_of_ten_seconds_survives_a_silent_connection(emulator: Emulator) {
    while_responsive(&emulator, async || {
        let (forwarder, backend) = forwarded(&emulator).await;
        let locks = LockManager::new(backend);
        let request = locks.lock(fresh_key()).ttl(Duration::from_secs(10)).keep_alive();
        let guard = request.acquire().await?;
        forwarder.silence_open();
        if timeout(Duration::from_secs(22), guard.lost()).await.is_ok() {
            return Err(Error::new(ErrorCode::Lost, Operation::Hold));
        }
        assert!(guard.release().await?);
        locks.shutdown().await
    })
    .await;
}

async fn f1_a_waiter_is_notified_after_a_silent_connection(emulator: Emulator) {
    while_responsive(&emulator, async || {
        let forwarder = Forwarder::to(&emulator.address).await.unwrap();
        let waiting = defaults(forwarder.port()).notifications(true).connect(PROJECT).await?;
        let other = emulator.backend().await;
        let lease = granted(other.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        // The first one says that notifications have begun.
        waiting.notified(lease.key()).await;
        forwarder.silence_open();
        let silent = Instant::now();
        // A call finds out that the connection is silent.
        waiting.get(lease.key()).await?;
        // The stream begins anew, which wakes as well.
        waiting.notified(lease.key()).await;
        let notification = waiting.notified(lease.key());
        assert!(other.release(&lease).await?);
        notification.await;
        assert!(silent.elapsed() < Duration::from_secs(20), "{:?}", silent.elapsed());
        Ok(())
    })
    .await;
}

async fn f1_callers_that_give_up_leave_no_work_behind(emulator: Emulator) {
    let (forwarder, backend) = forwarded(&emulator).await;
    let locks = LockManager::new(backend);
    forwarder.silence_all();
    let restored = Instant::now() + Duration::from_secs(8);
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let locks = locks.clone();
        callers.spawn(async move {
            while Instant::now() < restored {
                let request = locks.lock(fresh_key());
                let _ = timeout(Duration::from_millis(20), request.acquire()).await;
            }
        });
    }
    callers.join_all().await;
    forwarder.restore();
    let back = Instant::now();
    let mut working = JoinSet::new();
    for _ in 0..32 {
        let locks = locks.clone();
        working.spawn(async move {
            let request = locks.lock(fresh_key()).wait(Duration::from_secs(10));
            let guard = request.acquire().await.unwrap();
            guard.release().await.unwrap()
        });
    }
    assert!(working.join_all().await.iter().all(|released| *released));
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    assert!(forwarder.accepted() < 10, "{}", forwarder.accepted());
    locks.shutdown().await.unwrap();
}

async fn f2_an_error_that_is_not_listed_closes_the_connection(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let forwarder = Forwarder::to(proxy.address()).await.unwrap();
    let backend = defaults(forwarder.port()).connect(PROJECT).await.unwrap();
    // Now the forwarder has certainly counted the connection.
    backend.get(&fresh_key()).await.unwrap();
    for (code, closes) in [
        (Code::PermissionDenied, false),
        (Code::ResourceExhausted, false),
        (Code::Unavailable, true),
        (Code::Internal, true),
        (Code::Unauthenticated, true),
    ] {
        let before = forwarder.accepted();
        proxy.judge_next(READ, [Verdict::Refuse(code)]);
        backend.get(&fresh_key()).await.unwrap_err();
        backend.get(&fresh_key()).await.unwrap();
        assert_eq!(forwarder.accepted() - before, usize::from(closes), "{code:?}");
    }
}

/// Makes something in a runtime that ends before this returns.
async fn in_another_runtime<T: Send + 'static>(
    make: impl AsyncFnOnce() -> T + Send + 'static,
) -> T {
    let made = spawn_blocking(move || Runtime::new().unwrap().block_on(make()));
    made.await.unwrap()
}

async fn f3_a_backend_outlives_the_runtime_that_made_it(emulator: Emulator) {
    let patient = builder(&emulator.address);
    let (backend, lease) = in_another_runtime(async move || {
        let backend = patient.connect(PROJECT).await.unwrap();
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        (backend, lease)
    })
    .await;
    assert!(backend.get(lease.key()).await.unwrap().is_some());
    let backend = in_another_runtime(async move || {
        assert!(backend.release(&lease).await.unwrap());
        backend
    })
    .await;
    granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
}

async fn f3_a_client_whose_runtime_has_ended_is_a_clear_error(emulator: Emulator) {
    let backend = in_another_runtime(async move || {
        let client = emulator.raw().await.0;
        let backend = FirestoreBackend::new(PROJECT, &client).unwrap();
        while backend.get(&fresh_key()).await.is_err() {}
        backend
    })
    .await;
    let error = backend.get(&fresh_key()).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("runtime"), "{error}");
}

//! H2 and H3: releases in the background.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard::LockManager;
use syncguard_core::{Backend, Error, ErrorCode, Operation, Result};
use syncguard_memory::{Fault, MemoryBackend};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::store::{LONG, Store, fresh_key, until, when};

cases![
    h2_a_dropped_guard_releases,
    h2_a_guard_dropped_outside_a_runtime_releases,
    h2_a_guard_dropped_by_a_panic_releases,
    h2_a_guard_dropped_after_its_runtime_is_released_on_another,
    h2_a_failed_release_is_reported_and_goes_on,
    h2_a_transient_failure_in_the_background_is_retried,
    h2_a_failure_in_the_background_goes_to_the_callback,
    h2_a_callback_that_panics_does_no_harm,
    h3_shutdown_finishes_the_releases,
    h3_shutdown_is_bounded,
    h3_shutdown_ends_waiting,
];

async fn h2_a_dropped_guard_releases(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    drop(locks.lock(&key).ttl(LONG).acquire().await?);
    store.until_free(&key).await
}

async fn h2_a_guard_dropped_outside_a_runtime_releases(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let outside = std::thread::spawn(move || drop(guard));
    outside.join().expect("expected no panic");
    store.until_free(&key).await
}

async fn h2_a_guard_dropped_by_a_panic_releases(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _held = guard;
        resume_unwind(Box::new("expected"));
    });
    let outcome: std::result::Result<(), _> = tasks.join_next().await.expect("one task");
    check!(outcome.is_err_and(|error| error.is_panic()));
    store.until_free(&key).await
}

/// This case uses the memory backend, because the connections of another one would not survive the
/// runtime that it shuts down.
async fn h2_a_guard_dropped_after_its_runtime_is_released_on_another(_: Store) -> Result<()> {
    let (reports, on_error) = reports();
    let locks = LockManager::builder(MemoryBackend::new()).on_release_error(on_error).build();
    let key = fresh_key();
    let request = locks.lock(&key).ttl(LONG);
    let thread = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let guard = runtime.block_on(request.acquire());
        drop(runtime);
        drop(guard.unwrap());
    });
    thread.join().expect("expected no panic");
    // The manager was built on this runtime, so it knows where the release can run.
    until(async || Ok(!locks.is_locked(&key).await?)).await?;
    assert_eq!(codes(&reports), []);
    Ok(())
}

async fn h2_a_failed_release_is_reported_and_goes_on(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, before| match (operation, before) {
        (Operation::Release, 0) => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let error =
        guard.release().await.expect_err("expected the injected failure, but the call succeeded");
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert_eq!(error.operation(), Operation::Release);
    store.until_free(&key).await?;
    assert_eq!(faulty.count(Operation::Release), 2);
    Ok(())
}

async fn h2_a_transient_failure_in_the_background_is_retried(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, before| match (operation, before) {
        (Operation::Release, 0) => Fault::Fail(ErrorCode::NetworkTimeout),
        (Operation::Release, 1) => Fault::Fail(ErrorCode::RateLimited),
        _ => Fault::None,
    });
    let key = fresh_key();
    drop(locks.lock(&key).ttl(LONG).acquire().await?);
    store.until_free(&key).await?;
    assert_eq!(faulty.count(Operation::Release), 3);
    Ok(())
}

async fn h2_a_failure_in_the_background_goes_to_the_callback(store: Store) -> Result<()> {
    let faulty = store.faulty(refused_releases);
    let (reports, on_error) = reports();
    let locks = LockManager::builder(faulty).on_release_error(on_error).build();
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let id = guard.id().clone();
    drop(guard);
    until(async || Ok(!reports.lock().unwrap().is_empty())).await?;
    locks.shutdown().await?;
    assert_eq!(codes(&reports), [ErrorCode::AuthFailed], "expected one report");
    let (_, text) = reports.lock().unwrap().remove(0);
    assert!(
        text.contains(&key.fingerprint().to_string()),
        "expected the fingerprint of the key, but got {text}"
    );
    check!(!text.contains(key.as_str()));
    check!(!text.contains(id.as_str()));
    assert!(
        store.two.release_by_id(&id).await?,
        "expected the lease to stand until its TTL, but it is gone"
    );
    Ok(())
}

async fn h2_a_callback_that_panics_does_no_harm(store: Store) -> Result<()> {
    let faulty = store.faulty(refused_releases);
    let locks = LockManager::builder(faulty)
        .on_release_error(|_| resume_unwind(Box::new("expected")))
        .build();
    drop(locks.lock(fresh_key()).ttl(LONG).acquire().await?);
    drop(locks.lock(fresh_key()).ttl(LONG).acquire().await?);
    locks.shutdown().await
}

fn refused_releases(operation: Operation, _: usize) -> Fault {
    match operation {
        Operation::Release => Fault::Fail(ErrorCode::AuthFailed),
        _ => Fault::None,
    }
}

async fn h3_shutdown_finishes_the_releases(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(held_releases);
    let keys = [fresh_key(), fresh_key(), fresh_key()];
    for key in &keys {
        drop(locks.lock(key).ttl(LONG).acquire().await?);
    }
    let sent = async || Ok(faulty.count(Operation::Release) == keys.len());
    let opening = when(sent, || faulty.open());
    tokio::try_join!(locks.shutdown(), opening)?;
    for key in &keys {
        assert_eq!(
            store.two.get(key).await?,
            None,
            "expected the lease to be released when `shutdown` returns"
        );
    }
    Ok(())
}

async fn h3_shutdown_is_bounded(store: Store) -> Result<()> {
    let faulty = store.faulty(held_releases);
    let limit = Duration::from_millis(200);
    let locks = LockManager::builder(faulty.clone()).shutdown_limit(limit).build();
    let key = fresh_key();
    drop(locks.lock(&key).ttl(LONG).acquire().await?);
    let asked = Instant::now();
    let error = locks.shutdown().await.expect_err("expected shutdown to give up, but it succeeded");
    let waited = asked.elapsed();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
    assert_eq!(error.operation(), Operation::Shutdown);
    assert!(
        limit <= waited && waited < limit * 40,
        "expected the end at the limit, but it came after {waited:?}"
    );
    faulty.open();
    store.until_free(&key).await
}

fn held_releases(operation: Operation, _: usize) -> Fault {
    match operation {
        Operation::Release => Fault::HoldRequest,
        _ => Fault::None,
    }
}

async fn h3_shutdown_ends_waiting(store: Store) -> Result<()> {
    let key = fresh_key();
    store.take(&key, LONG).await?;
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let shut_down_after_an_attempt = async {
        until(async || Ok(faulty.count(Operation::Acquire) >= 1)).await?;
        locks.shutdown().await
    };
    let waiting = locks.lock(&key).wait(LONG).acquire();
    let (outcome, shut_down) = tokio::join!(waiting, shut_down_after_an_attempt);
    shut_down?;
    assert_eq!(outcome.expect_err("expected the wait to fail").code(), ErrorCode::Aborted);
    let later = locks.lock(fresh_key()).acquire().await;
    assert_eq!(
        later.expect_err("expected an acquire after the shutdown to fail").code(),
        ErrorCode::Aborted
    );
    Ok(())
}

type Reports = Arc<Mutex<Vec<(ErrorCode, String)>>>;

/// Collects the codes and the texts that a callback receives.
fn reports() -> (Reports, impl Fn(&Error) + Send + Sync + 'static) {
    let reports = Reports::default();
    let collect = reports.clone();
    let on_error = move |error: &Error| {
        let text = format!("{error} {error:?}");
        collect.lock().unwrap().push((error.code(), text));
    };
    (reports, on_error)
}

fn codes(reports: &Reports) -> Vec<ErrorCode> {
    let reports = reports.lock().unwrap();
    reports.iter().map(|(code, _)| *code).collect()
}

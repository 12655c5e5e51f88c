//! Guards that outlive their runtime, calls outside any runtime, and work that blocks its thread.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::block_on::block_on;
use support::plain;
use support::threads::{one_thread, two_threads};
use syncguard::Operation;
use syncguard::{Error, ErrorCode, LockGuard, LockManager, LockManagerBuilder, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Runtime;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What background releases reported.
type Reports = Arc<Mutex<Vec<Error>>>;

fn reporting(backend: &FaultyBackend) -> (LockManagerBuilder, Reports) {
    let reports = Reports::default();
    let sink = reports.clone();
    let builder = LockManager::builder(backend.clone());
    let report = move |error: &Error| sink.lock().unwrap().push(error.clone());
    (builder.on_release_error(report), reports)
}

/// A guard that was acquired in a runtime which is gone.
fn orphan(locks: &LockManager, gone: Runtime) -> LockGuard {
    let guard = gone.block_on(locks.lock("key").ttl(HOUR).acquire()).unwrap();
    drop(gone);
    guard
}

async fn finished_and_free(locks: &LockManager) {
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap());
}

#[test]
fn h2_a_guard_without_its_runtime_is_released_on_the_current_one() {
    for (gone, current) in [(one_thread(), two_threads()), (two_threads(), one_thread())] {
        let (builder, reports) = reporting(&plain());
        let locks = builder.build();
        let guard = orphan(&locks, gone);
        current.block_on(async {
            drop(guard);
            finished_and_free(&locks).await;
        });
        assert!(reports.lock().unwrap().is_empty());
    }
}

#[test]
fn h2_a_guard_without_its_runtime_can_be_released_by_its_owner() {
    let locks = LockManager::new(plain());
    let guard = orphan(&locks, one_thread());
    assert!(one_thread().block_on(guard.release()).unwrap());
}

#[test]
fn h2_outside_a_runtime_it_is_released_on_the_one_that_the_manager_knows() {
    let current = two_threads();
    let (builder, reports) = reporting(&plain());
    let locks = builder.runtime(current.handle().clone()).build();
    drop(orphan(&locks, one_thread()));
    current.block_on(finished_and_free(&locks));
    assert!(reports.lock().unwrap().is_empty());
}

#[test]
fn h2_a_manager_knows_the_runtime_in_which_it_was_built() {
    let current = two_threads();
    let (builder, reports) = reporting(&plain());
    let locks = current.block_on(async { builder.build() });
    drop(orphan(&locks, one_thread()));
    current.block_on(finished_and_free(&locks));
    assert!(reports.lock().unwrap().is_empty());
}

#[test]
fn h2_without_any_runtime_it_is_reported_once() {
    let (builder, reports) = reporting(&plain());
    let locks = builder.build();
    drop(orphan(&locks, one_thread()));
    let reports = reports.lock().unwrap();
    let codes: Vec<_> = reports.iter().map(Error::code).collect();
    assert_eq!(codes, [ErrorCode::Aborted]);
    assert!(reports[0].to_string().contains("LockManagerBuilder::runtime"), "{}", reports[0]);
    assert_eq!(reports[0].key(), Some(syncguard::Fingerprint::of("key")));
}

#[test]
fn h2_a_panic_of_the_work_in_another_runtime_does_not_hold_back_the_release() {
    let (builder, reports) = reporting(&plain());
    let locks = builder.build();
    let guard = orphan(&locks, one_thread());
    let current = two_threads();
    let work = current.spawn(async move {
        let _guard = guard;
        panic!("a test injects this panic");
    });
    current.block_on(async {
        assert!(work.await.unwrap_err().is_panic());
        finished_and_free(&locks).await;
    });
    assert!(reports.lock().unwrap().is_empty(), "{:?}", reports.lock().unwrap());
}

#[test]
fn h2_a_release_whose_backend_panics_is_reported_once_and_not_repeated() {
    let backend = plain();
    let (builder, reports) = reporting(&backend);
    let (home, other) = (two_threads(), two_threads());
    let locks = builder.runtime(other.handle().clone()).build();
    let guard = home.block_on(locks.lock("key").acquire()).unwrap();
    backend.next(Operation::Release, Fault::Panic);
    drop(guard);
    home.block_on(locks.shutdown()).unwrap();
    assert_eq!(backend.count(Operation::Release), 1);
    assert_eq!(reports.lock().unwrap().len(), 1);
}

#[test]
fn h4_a_lease_is_kept_alive_on_the_runtime_that_the_manager_knows() {
    let ttl = 2 * SECOND;
    let current = two_threads();
    let gone = one_thread();
    let locks = LockManager::builder(plain()).runtime(current.handle().clone()).build();
    let guard = gone.block_on(locks.lock("key").ttl(ttl).keep_alive().acquire()).unwrap();
    let token = guard.lost_token();
    drop(gone);
    current.block_on(async {
        tokio::time::sleep(2 * ttl).await;
        assert!(!guard.is_lost() && !token.is_cancelled());
        assert!(locks.owns(guard.id()).await.unwrap());
        assert!(guard.release().await.unwrap());
    });
}

#[test]
fn h5_a_keep_alive_that_no_runtime_can_run_is_a_loss_at_once() {
    let losses = Arc::new(Mutex::new(0));
    let sink = losses.clone();
    let locks = LockManager::builder(plain())
        .observer(move |event| {
            *sink.lock().unwrap() += u32::from(event.operation() == Operation::Hold);
        })
        .build();
    let gone = one_thread();
    let guard = gone.block_on(locks.lock("key").ttl(HOUR).keep_alive().acquire()).unwrap();
    let token = guard.lost_token();
    drop(gone);
    assert!(guard.is_lost() && token.is_cancelled());
    one_thread().block_on(async { assert!(guard.release().await.unwrap()) });
    assert_eq!(*losses.lock().unwrap(), 1);
}

#[test]
fn calls_outside_a_runtime_are_refused_before_the_backend_is_asked() {
    fn refused<T>(operation: Operation, call: impl Future<Output = Result<T>>) {
        let error = block_on(call).err().unwrap();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        assert_eq!(error.operation(), operation, "{error}");
        assert!(error.to_string().contains("tokio runtime"), "{error}");
    }
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let runtime = two_threads();
    let guard = runtime.block_on(locks.lock("key").ttl(HOUR).acquire()).unwrap();
    let (id, lease) = (guard.id().clone(), guard.lease());
    let calls = backend.history().len();
    refused(Operation::Get, locks.get("key"));
    refused(Operation::Get, locks.is_locked("key"));
    refused(Operation::Find, locks.find(&id));
    refused(Operation::Find, locks.owns(&id));
    refused(Operation::Extend, locks.extend_by_id(&id, SECOND));
    refused(Operation::Release, locks.release_by_id(&id));
    refused(Operation::Acquire, locks.lock("other").acquire());
    refused(Operation::Acquire, locks.lock("other").try_acquire());
    refused(Operation::Acquire, locks.lock("other").run(async |_| -> Result<()> { Ok(()) }));
    refused(Operation::Extend, locks.lock("key").adopt(&lease));
    refused(Operation::Extend, guard.extend(SECOND));
    refused(Operation::Shutdown, locks.shutdown());
    assert_eq!(backend.history().len(), calls);
    // Nothing was sent, so the lease has the time that it had.
    assert!(guard.remaining() > HOUR / 2, "{:?}", guard.remaining());
    // A release goes on in the runtime of the guard.
    refused(Operation::Release, guard.release());
    runtime.block_on(finished_and_free(&locks));
}

#[test]
fn h5_a_loss_can_be_awaited_outside_a_runtime() {
    let locks = LockManager::new(plain());
    let runtime = two_threads();
    let guard = runtime.block_on(locks.lock("key").ttl(300 * MS).acquire()).unwrap();
    block_on(guard.lost());
    assert!(guard.is_lost());
}

#[test]
fn h4_work_that_blocks_its_worker_right_after_the_grant_keeps_its_lease() {
    let runtime = two_threads();
    let locks = LockManager::new(plain());
    let work = runtime.spawn(async move {
        let guard = locks.lock("key").ttl(SECOND).keep_alive().acquire().await.unwrap();
        thread::sleep(2_500 * MS);
        let lost = guard.is_lost();
        drop(guard);
        lost
    });
    assert!(!runtime.block_on(work).unwrap());
}

#[test]
fn h4_work_of_run_that_blocks_its_worker_keeps_its_lease() {
    let runtime = two_threads();
    let locks = LockManager::new(plain());
    let work = runtime.spawn(locks.lock("key").ttl(SECOND).run(async |_| -> Result<()> {
        thread::sleep(2_500 * MS);
        Ok(())
    }));
    assert!(runtime.block_on(work).unwrap().is_ok());
}

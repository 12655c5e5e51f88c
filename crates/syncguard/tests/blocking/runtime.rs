//! The runtime of a manager, and calls inside a runtime of the caller.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use syncguard::blocking::LockManager;
use syncguard::{Error, ErrorCode, Operation};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend};
use tokio::runtime::Handle;

use super::{HOUR, MS, code, eventually, inside_a_runtime, locks, locks_on};

#[test]
fn the_last_drop_of_a_manager_finishes_its_releases() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = locks_on(backend.clone());
    let guard = locks.lock("key").ttl(HOUR).acquire().unwrap();
    backend.next(Operation::Release, Fault::DelayRequest(20 * MS));
    drop(locks);
    // The guard keeps the runtime of its manager.
    guard.extend(2 * HOUR).unwrap();
    drop(guard);
    let other = locks_on(backend);
    eventually("the key is free", || !other.is_locked("key").unwrap());
}

#[test]
fn the_thread_of_a_manager_ends_with_it() {
    struct Ends(mpsc::Sender<()>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let (ends, ended) = mpsc::channel();
    let locks = LockManager::connect(async {
        let ends = Ends(ends);
        // A task like that of a driver, which lives as long as the runtime.
        Handle::current().spawn(async move {
            std::future::pending::<()>().await;
            drop(ends);
        });
        Ok(MemoryBackend::new())
    })
    .unwrap();
    let clone = locks.clone();
    drop(locks);
    assert!(ended.recv_timeout(50 * MS).is_err());
    drop(clone);
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn methods_that_block_refuse_inside_a_runtime_and_say_what_to_use() {
    let locks = locks();
    let guard = locks.lock("key").ttl(HOUR).acquire().unwrap();
    let doomed = locks.lock("doomed").ttl(HOUR).acquire().unwrap();
    let id = guard.id().clone();
    let lease = guard.lease();
    inside_a_runtime(async || {
        let request = || locks.lock("other");
        let refusals = [
            LockManager::connect(async { Ok(MemoryBackend::new()) }).map(drop),
            request().acquire().map(drop),
            request().try_acquire().map(drop),
            request().run(|_| Ok(())),
            locks.lock("key").adopt(&lease).map(drop),
            locks.get("key").map(drop),
            locks.find(&id).map(drop),
            locks.is_locked("key").map(drop),
            locks.owns(&id).map(drop),
            locks.extend_by_id(&id, HOUR).map(drop),
            locks.release_by_id(&id).map(drop),
            guard.extend(HOUR).map(drop),
            guard.wait_lost(HOUR).map(drop),
            doomed.release().map(drop),
            locks.shutdown(),
        ];
        for refusal in refusals {
            let error = refusal.unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert!(error.message().unwrap().contains("use the async LockManager"), "{error}");
        }
        assert!(!guard.is_lost());
        assert_eq!(locks.waiters(), 0);
        let blocking = Handle::current().spawn_blocking({
            let request = request();
            move || request.acquire()
        });
        assert_eq!(code(blocking.await.unwrap()), ErrorCode::InvalidArgument);
    });
    // A refused release goes on in the background, and nothing else has happened.
    eventually("the refused release is done", || !locks.is_locked("doomed").unwrap());
    assert!(guard.release().unwrap());
}

#[test]
fn a_manager_and_a_guard_may_be_dropped_inside_a_runtime() {
    let backend = MemoryBackend::new();
    let locks = locks_on(backend.clone());
    let guard = locks.lock("key").ttl(HOUR).acquire().unwrap();
    inside_a_runtime(async || {
        drop(locks);
        drop(guard);
    });
    let other = locks_on(backend);
    drop(other.lock("key").wait(HOUR).acquire().unwrap());
}

#[test]
fn a_callback_of_the_manager_cannot_block_its_thread() {
    let slot = Arc::new(OnceLock::<LockManager>::new());
    let (codes, seen) = mpsc::channel();
    let from_callback = slot.clone();
    let connect = async { Ok(MemoryBackend::new()) };
    let locks = LockManager::connect_with(connect, |options| {
        options.observer(move |_| {
            if let Some(locks) = from_callback.get() {
                codes.send(code(locks.get("key"))).unwrap();
            }
        })
    })
    .unwrap();
    assert!(slot.set(locks.clone()).is_ok());
    drop(locks.lock("key").acquire().unwrap());
    locks.shutdown().unwrap();
    let seen: Vec<_> = seen.try_iter().collect();
    assert!(seen.len() >= 3 && seen.iter().all(|code| *code == ErrorCode::InvalidArgument));
}

#[test]
fn a_backend_that_does_not_connect_reports_its_error() {
    let connect = async {
        let failure = Error::new(ErrorCode::ServiceUnavailable, Operation::Configure);
        Err::<MemoryBackend, _>(failure)
    };
    assert_eq!(code(LockManager::connect(connect)), ErrorCode::ServiceUnavailable);
}

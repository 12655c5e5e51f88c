//! What requests, guards and managers do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncguard::blocking::{LockGuard, LockManager, LockRequest};
use syncguard::{Error, ErrorCode, Operation, Result};
use syncguard_memory::MemoryBackend;

use super::{HOUR, MS, code, locks, locks_on};

#[test]
fn types_are_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<LockManager>();
    check::<LockRequest>();
    check::<LockGuard>();
}

#[test]
fn an_acquired_lock_is_held_until_it_is_released() {
    let locks = locks();
    let guard = locks.lock("key").ttl(HOUR).acquire().unwrap();
    assert_eq!((guard.key().as_str(), guard.fence().get()), ("key", 1));
    assert!(guard.remaining() > HOUR / 2 && !guard.is_lost());
    assert_eq!(guard.lease().expires_at(), guard.expires_at());
    let expires_at = guard.expires_at();
    assert!(guard.extend(2 * HOUR).unwrap() > expires_at);

    assert!(locks.is_locked("key").unwrap() && locks.owns(guard.id()).unwrap());
    assert!(locks.lock("key").try_acquire().unwrap().is_none());
    let waited = locks.lock("key").wait(50 * MS).acquire();
    assert_eq!(code(waited), ErrorCode::AcquisitionTimeout);

    assert!(guard.release().unwrap());
    let next = locks.lock("key").try_acquire().unwrap().unwrap();
    assert_eq!(next.fence().get(), 2);
}

#[test]
fn leases_are_found_extended_and_released_by_id() {
    let locks = locks();
    let guard = locks.lock("key").ttl(HOUR).acquire().unwrap();
    assert_eq!(locks.find(guard.id()).unwrap().unwrap().fence(), guard.fence());
    let extended = locks.extend_by_id(guard.id(), 2 * HOUR).unwrap().unwrap();
    assert!(extended.expires_at() > guard.expires_at());
    assert!(locks.release_by_id(guard.id()).unwrap());
    assert!(locks.find(guard.id()).unwrap().is_none());
    assert!(!guard.release().unwrap());
}

#[test]
fn a_detached_lease_is_adopted_by_another_manager() {
    let backend = MemoryBackend::new();
    let lease = locks_on(backend.clone()).lock("key").ttl(HOUR).acquire().unwrap().detach();
    let other = locks_on(backend);
    let guard = other.lock("key").ttl(HOUR).adopt(&lease).unwrap().unwrap();
    assert_eq!(guard.fence(), lease.fence());
    assert!(guard.release().unwrap());
    assert!(other.lock("key").adopt(&lease).unwrap().is_none());
}

#[test]
fn options_apply_to_every_request() {
    let waits = Arc::new(AtomicU64::new(0));
    let seen = waits.clone();
    let connect = async { Ok(MemoryBackend::new()) };
    let locks = LockManager::connect_with(connect, |options| {
        options.ttl(HOUR).wait(20 * MS).observer(move |event| {
            if event.operation() == Operation::Wait {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
    })
    .unwrap();
    let guard = locks.lock("key").acquire().unwrap();
    assert!(guard.remaining() > HOUR / 2);
    assert_eq!(code(locks.lock("key").acquire()), ErrorCode::AcquisitionTimeout);
    assert_eq!(waits.load(Ordering::Relaxed), 2);
}

#[test]
fn run_returns_the_result_of_the_work_and_frees_the_key() {
    #[derive(Debug)]
    enum WorkError {
        Refused,
        Locking(Error),
    }
    impl From<Error> for WorkError {
        fn from(error: Error) -> Self {
            Self::Locking(error)
        }
    }
    let locks = locks();
    let mut fences = Vec::new();
    let mut work = |fail: bool| {
        locks.lock("key").run(|lock| {
            fences.push(lock.fence().get());
            if fail { Err(WorkError::Refused) } else { Ok("done") }
        })
    };
    assert_eq!(work(false).unwrap(), "done");
    assert!(matches!(work(true), Err(WorkError::Refused)));
    assert_eq!(fences, [1, 2]);
    assert!(!locks.is_locked("key").unwrap());

    let bad_key = locks.lock("").run(|_| Ok::<_, WorkError>(()));
    let Err(WorkError::Locking(error)) = bad_key else { panic!("expected an error of the lock") };
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
}

#[test]
fn run_frees_the_key_if_the_work_panics() {
    let locks = locks();
    let work = || locks.lock("key").ttl(HOUR).run(|_| -> Result<()> { panic!("on purpose") });
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    drop(locks.lock("key").wait(HOUR).acquire().unwrap());
}

#[test]
fn h6_run_reports_work_that_outlived_its_lease() {
    let locks = locks();
    let without_renewal = locks.lock("key").ttl(50 * MS).without_keep_alive().run(|lock| {
        assert!(lock.wait_lost(HOUR)?);
        Ok::<_, Error>(())
    });
    assert_eq!(code(without_renewal), ErrorCode::Lost);

    let bounded = locks.lock("other").max_hold(50 * MS).run(|lock| lock.wait_lost(HOUR));
    assert_eq!(code(bounded), ErrorCode::Lost);

    let released_by_another = locks.lock("third").ttl(HOUR).run(|lock| {
        assert!(!lock.is_lost());
        locks.release_by_id(lock.id())
    });
    assert_eq!(code(released_by_another), ErrorCode::Lost);
}

#[test]
fn debug_is_one_line_without_the_key() {
    let locks = locks();
    let request = locks.lock("secret-key");
    let guard = request.clone().acquire().unwrap();
    for text in [format!("{locks:?}"), format!("{request:?}"), format!("{guard:?}")] {
        assert!(!text.contains("secret-key") && text.lines().count() == 1, "{text}");
    }
}

//! E: what an error contains, and invalid input.

use std::error::Error as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use syncguard_core::{Backend, Error, ErrorCode, Operation, Result};
use syncguard_memory::Fault;

use crate::expect::{assert_not_extended, assert_not_released, assert_released};
use crate::store::{LONG, Store, fresh_id, fresh_key, operations, race};

cases![
    e1_an_error_names_code_operation_key_and_source,
    e1_an_error_without_a_key_names_the_id,
    e1_bad_keys,
    e1_bad_ttls,
    e1_bad_input_sends_nothing,
    e1_bad_input_at_once_leaves_the_backend_usable,
    e1_a_lock_outside_a_runtime,
    l3_diagnostics,
];

async fn e1_an_error_names_code_operation_key_and_source(store: Store) -> Result<()> {
    let key = fresh_key();
    let failure = ErrorCode::AuthFailed;
    let (_, locks) = store.with_faults(move |operation, before| match (operation, before) {
        (Operation::Acquire, 0) => Fault::None,
        _ => Fault::Fail(failure),
    });
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let id = guard.id().clone();
    let errors = [
        locks
            .lock(&key)
            .acquire()
            .await
            .expect_err("expected the injected failure, but the call succeeded"),
        locks.get(&key).await.expect_err("expected the injected failure, but the call succeeded"),
        guard
            .extend(LONG)
            .await
            .expect_err("expected the injected failure, but the call succeeded"),
        guard.release().await.expect_err("expected the injected failure, but the call succeeded"),
    ];
    let operations = errors.each_ref().map(Error::operation);
    let expected = [Operation::Acquire, Operation::Get, Operation::Extend, Operation::Release];
    assert_eq!(operations, expected);
    for error in errors {
        assert_eq!(error.code(), failure);
        assert_eq!(error.key(), Some(key.fingerprint()));
        let source = error.source().expect("expected a source, but got none");
        assert_eq!(source.to_string(), "injected by FaultyBackend");
        let text = format!("{error} {error:?}");
        check!(!text.contains(key.as_str()));
        check!(!text.contains(id.as_str()));
    }
    assert_released(store.two.release_by_id(&id).await?);
    Ok(())
}

async fn e1_an_error_without_a_key_names_the_id(store: Store) -> Result<()> {
    let id = fresh_id();
    let (_, locks) = store.with_faults(|_, _| Fault::Fail(ErrorCode::AuthFailed));
    let errors = [
        locks.find(&id).await.expect_err("expected the injected failure, but the call succeeded"),
        locks.owns(&id).await.expect_err("expected the injected failure, but the call succeeded"),
        locks
            .extend_by_id(&id, LONG)
            .await
            .expect_err("expected the injected failure, but the call succeeded"),
        locks
            .release_by_id(&id)
            .await
            .expect_err("expected the injected failure, but the call succeeded"),
    ];
    for error in errors {
        assert_eq!(error.id(), Some(id.fingerprint()));
        assert!(!format!("{error} {error:?}").contains(id.as_str()));
    }
    Ok(())
}

/// Empty keys, keys that are too long before or only after normalization, and keys with NUL.
fn bad_keys() -> [String; 5] {
    [
        String::new(),
        "x".repeat(513),
        "\u{1f512}".repeat(129),
        "\u{958}".repeat(86),
        "nul\0".to_owned(),
    ]
}

async fn e1_bad_keys(store: Store) -> Result<()> {
    let locks = store.locks();
    for bad in bad_keys() {
        let bad = bad.as_str();
        assert_bad(locks.lock(bad).acquire().await, Operation::Acquire);
        assert_bad(locks.lock(bad).try_acquire().await, Operation::Acquire);
        let never = async |_: &_| -> Result<()> {
            panic!("expected the request to be refused, but the work began")
        };
        assert_bad(locks.lock(bad).run(never).await, Operation::Acquire);
        assert_bad(locks.get(bad).await, Operation::Get);
        assert_bad(locks.is_locked(bad).await, Operation::Get);
    }
    Ok(())
}

async fn e1_bad_ttls(store: Store) -> Result<()> {
    let locks = store.locks();
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let before = store.two.get(&key).await?;
    for bad in [Duration::ZERO, Duration::from_millis((1 << 52) + 1), Duration::MAX] {
        let request = || locks.lock(fresh_key()).ttl(bad);
        assert_bad(request().acquire().await, Operation::Acquire);
        assert_bad(request().try_acquire().await, Operation::Acquire);
        assert_bad(guard.extend(bad).await, Operation::Extend);
        let by_id = locks.extend_by_id(guard.id(), bad).await;
        assert_bad(by_id, Operation::Extend);
        let adopt = locks.lock(&key).ttl(bad).adopt(&guard.lease()).await;
        assert_bad(adopt, Operation::Extend);
    }
    assert_eq!(store.two.get(&key).await?, before, "expected no change of the lease");
    assert!(guard.release().await?, "expected release to return true, but the lease was lost");
    Ok(())
}

async fn e1_bad_input_sends_nothing(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let (bad_key, id) = ("", fresh_id());
    assert_bad(locks.lock(bad_key).acquire().await, Operation::Acquire);
    assert_bad(locks.get(bad_key).await, Operation::Get);
    let zero = Duration::ZERO;
    let request = locks.lock(fresh_key()).ttl(zero);
    assert_bad(request.acquire().await, Operation::Acquire);
    assert_bad(locks.extend_by_id(&id, zero).await, Operation::Extend);
    assert_eq!(operations(&faulty), []);
    Ok(())
}

#[track_caller]
fn assert_bad<T>(outcome: Result<T>, operation: Operation) {
    let Err(error) = outcome else {
        panic!("expected `InvalidArgument`, but the call succeeded");
    };
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert_eq!(error.operation(), operation, "{error}");
}

async fn e1_bad_input_at_once_leaves_the_backend_usable(store: Store) -> Result<()> {
    let locks = store.locks();
    let bad = race(20, |index| {
        let locks = locks.clone();
        async move {
            match index % 2 {
                0 => locks.lock("").acquire().await.is_err(),
                _ => locks.get("x".repeat(600)).await.is_err(),
            }
        }
    });
    check!(bad.await.into_iter().all(|refused| refused));
    let guard = locks.lock(fresh_key()).ttl(LONG).acquire().await?;
    assert_released(guard.release().await?);
    Ok(())
}

async fn e1_a_lock_outside_a_runtime(store: Store) -> Result<()> {
    let locks = store.locks();
    let outside = std::thread::spawn(move || {
        let acquire = pin!(locks.lock(fresh_key()).acquire());
        match acquire.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome.map(|_| ()),
            Poll::Pending => panic!("expected a failure outside a runtime, but the call waits"),
        }
    });
    let outcome = outside.join().expect("expected no panic");
    assert_bad(outcome, Operation::Acquire);
    Ok(())
}

async fn l3_diagnostics(store: Store) -> Result<()> {
    let (key, locks) = (fresh_key(), store.locks());
    check!(!locks.is_locked(&key).await?);
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let id = guard.id().clone();
    let record = locks.get(&key).await?;
    assert_eq!(record, store.two.get(&key).await?);
    assert_eq!(record, locks.find(&id).await?);
    check!(locks.is_locked(key.as_str()).await?);
    check!(locks.owns(&id).await?);
    check!(!locks.owns(&fresh_id()).await?);
    let lease = locks.extend_by_id(&id, LONG * 2).await?;
    check!(lease.is_some_and(|lease| lease.fence() == guard.fence()));
    assert_released(locks.release_by_id(&id).await?);
    assert_not_released(locks.release_by_id(&id).await?);
    check!(!locks.owns(&id).await?);
    check!(!locks.is_locked(&key).await?);
    assert_not_extended(locks.extend_by_id(&id, LONG).await?);
    assert_not_released(guard.release().await?);
    Ok(())
}

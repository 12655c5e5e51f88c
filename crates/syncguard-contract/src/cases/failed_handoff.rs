//! G6 and G7: a handoff that fails, and a receiver or releaser that leaves during one.
//!
//! If a backend does not support handoff, a release and an attempt must give the same result.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use syncguard::{LockGuard, LockManager};
use syncguard_core::{Backend, ErrorCode, Key, LockRecord, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::sleep;

use crate::expect::{assert_released, assert_rises, code};
use crate::handoff_setup::{Setup, ends, quickly};
use crate::store::{LONG, PAUSE, Store, fresh_key, until};

cases![
    g6_a_refused_handoff_leaves_no_waiter_stuck,
    g6_a_handoff_whose_reply_is_lost_leaves_no_waiter_stuck,
    g6_a_waiter_that_is_polled_late_keeps_its_grant,
    g6_a_handoff_whose_receiver_is_never_polled_leaves_no_lease,
    g6_a_handoff_whose_receiver_gives_up_leaves_no_lease,
    g7_the_next_waiter_follows_a_receiver_that_leaves,
    g7_the_only_receiver_leaves_no_lease_when_it_leaves,
    g7_a_releaser_that_leaves_delays_no_waiter,
];

const FAILURES: [ErrorCode; 6] = [
    ErrorCode::ServiceUnavailable,
    ErrorCode::NetworkTimeout,
    ErrorCode::RateLimited,
    ErrorCode::AuthFailed,
    ErrorCode::InvalidArgument,
    ErrorCode::Internal,
];

async fn g6_a_refused_handoff_leaves_no_waiter_stuck(store: Store) -> Result<()> {
    for failure in FAILURES {
        all_are_served(&store, Fault::Fail(failure)).await?;
    }
    Ok(())
}

/// A backend that answers `AuthFailed` or `InvalidArgument` has not acted, so those are left out.
async fn g6_a_handoff_whose_reply_is_lost_leaves_no_waiter_stuck(store: Store) -> Result<()> {
    for failure in FAILURES {
        if !matches!(failure, ErrorCode::AuthFailed | ErrorCode::InvalidArgument) {
            all_are_served(&store, Fault::LoseReply(failure)).await?;
        }
    }
    Ok(())
}

async fn all_are_served(store: &Store, fault: Fault) -> Result<()> {
    let mut setup = Setup::new(store, 3, quickly, first_handoff(fault)).await?;
    setup.serve_all().await?;
    setup.settled(store).await
}

fn first_handoff(fault: Fault) -> impl Fn(Operation, usize) -> Fault + Clone {
    move |operation, before| match (operation, before) {
        (Operation::Handoff, 0) => fault,
        _ => Fault::None,
    }
}

/// The waiter is not polled until the handoff has failed and the old guard has released. It then
/// finds all of this at its next poll, and that an attempt is due.
async fn g6_a_waiter_that_is_polled_late_keeps_its_grant(store: Store) -> Result<()> {
    let faults = [
        Fault::Fail(ErrorCode::ServiceUnavailable),
        Fault::LoseReply(ErrorCode::ServiceUnavailable),
        Fault::LoseReply(ErrorCode::Internal),
    ];
    for fault in faults.into_iter().cycle().take(15) {
        let (faulty, locks) = store.with_faults(first_handoff(fault));
        let key = fresh_key();
        let receiver = receiver_of_a_failed_handoff(&store, &faulty, &locks, &key).await?;
        sleep(PAUSE * 2).await;
        let receiver = receiver.await?;
        locks.shutdown().await?;
        let record = store.two.get(&key).await?;
        let holder = record.as_ref().map(LockRecord::id);
        assert_eq!(holder, Some(receiver.id()), "expected the waiter to keep what it was granted");
        assert_released(receiver.release().await?);
    }
    Ok(())
}

/// The wait of the first waiter, which was not polled since the handoff failed.
async fn receiver_of_a_failed_handoff(
    store: &Store,
    faulty: &FaultyBackend,
    locks: &LockManager,
    key: &Key,
) -> Result<Pin<Box<dyn Future<Output = Result<LockGuard>>>>> {
    let guard = locks.lock(key).ttl(LONG).acquire().await?;
    let mut receiver = Box::pin(quickly(locks.lock(key).ttl(LONG).wait(LONG)).acquire());
    let first = poll_fn(|context| Poll::Ready(receiver.as_mut().poll(context))).await;
    assert!(
        first.is_pending(),
        "expected the second caller to wait, but it was granted the held key"
    );
    let id = guard.id().clone();
    // If it fails, it goes on in the background.
    let _ = guard.release().await;
    until(async || Ok(faulty.count(Operation::Handoff) == 0 || ends(faulty) >= 2)).await?;
    until(async || Ok(store.two.find(&id).await?.is_none())).await?;
    Ok(receiver)
}

async fn g6_a_handoff_whose_receiver_is_never_polled_leaves_no_lease(store: Store) -> Result<()> {
    for failure in [ErrorCode::ServiceUnavailable, ErrorCode::Internal] {
        let (faulty, locks) = store.with_faults(first_handoff(Fault::LoseReply(failure)));
        let key = fresh_key();
        drop(receiver_of_a_failed_handoff(&store, &faulty, &locks, &key).await?);
        locks.shutdown().await?;
        assert_eq!(
            store.two.get(&key).await?,
            None,
            "expected the key to be free, but a lease remains"
        );
    }
    Ok(())
}

async fn g6_a_handoff_whose_receiver_gives_up_leaves_no_lease(store: Store) -> Result<()> {
    // Every request that could find the grant fails.
    let fault = |operation, before| match (operation, before) {
        (Operation::Handoff, 0) => Fault::LoseReply(ErrorCode::NetworkTimeout),
        (Operation::Handoff | Operation::Acquire, 1..) => {
            Fault::Fail(ErrorCode::ServiceUnavailable)
        }
        _ => Fault::None,
    };
    let mut setup = Setup::new(&store, 1, quickly, fault).await?;
    if setup.supports_handoff() {
        until(async || Ok(setup.faulty.count(Operation::Acquire) >= 2)).await?;
    }
    setup.tokens[0].cancel();
    for waiter in setup.waiters.drain(..) {
        assert_eq!(code(waiter.outcome().await), ErrorCode::Aborted);
    }
    setup.settled(&store).await
}

async fn g7_the_next_waiter_follows_a_receiver_that_leaves(store: Store) -> Result<()> {
    for fault in [Fault::HoldRequest, Fault::HoldReply] {
        let mut setup = Setup::new(&store, 2, quickly, first_handoff(fault)).await?;
        let first = setup.waiters.remove(0);
        if setup.supports_handoff() {
            until(async || Ok(setup.faulty.held() == 1)).await?;
            setup.tokens[0].cancel();
            assert_eq!(code(first.outcome().await), ErrorCode::Aborted);
        } else {
            first.leave().await;
        }
        setup.faulty.open();
        let guard = setup.waiters.remove(0).outcome().await?;
        assert_rises(setup.old.fence(), guard.fence());
        assert_released(guard.release().await?);
        setup.settled(&store).await?;
    }
    Ok(())
}

async fn g7_the_only_receiver_leaves_no_lease_when_it_leaves(store: Store) -> Result<()> {
    for fault in [Fault::HoldRequest, Fault::HoldReply] {
        let mut setup = Setup::new(&store, 1, quickly, first_handoff(fault)).await?;
        if setup.supports_handoff() {
            until(async || Ok(setup.faulty.held() == 1)).await?;
        }
        setup.waiters.remove(0).leave().await;
        setup.faulty.open();
        setup.settled(&store).await?;
    }
    Ok(())
}

async fn g7_a_releaser_that_leaves_delays_no_waiter(store: Store) -> Result<()> {
    for fault in [Fault::HoldRequest, Fault::HoldReply] {
        let mut setup = Setup::new(&store, 2, quickly, first_handoff(fault)).await?;
        if setup.supports_handoff() {
            until(async || Ok(setup.faulty.held() == 1)).await?;
        }
        setup
            .released
            .take()
            .expect("expected a release under way, but there is none")
            .leave()
            .await;
        setup.faulty.open();
        let mut fence = setup.old.fence();
        for waiter in setup.waiters.drain(..) {
            let guard = waiter.outcome().await?;
            assert_rises(fence, guard.fence());
            fence = guard.fence();
            assert_released(guard.release().await?);
        }
        setup.settled(&store).await?;
    }
    Ok(())
}

//! H4, H5 and H7: renewals, and the loss of a lease.

use std::time::Duration;

use syncguard_core::{Backend, ErrorCode, Operation, Result};
use syncguard_memory::Fault;
use tokio::time::{Instant, sleep};

use crate::store::{MARGIN, Store, fresh_key, operations, until};

cases![
    h4_keep_alive_renews_at_a_third_of_the_ttl,
    h4_a_failed_renewal_is_no_loss,
    h4_without_keep_alive_nothing_is_renewed,
    h5_loss_is_signalled_when_the_backend_says_so,
    h5_loss_is_signalled_at_the_deadline,
    h5_loss_is_signalled_while_a_renewal_hangs,
    h5_loss_is_signalled_while_every_renewal_fails,
    h5_a_release_is_no_loss,
    h7_a_release_does_not_wait_for_a_renewal_that_hangs,
    h7_no_renewal_is_sent_after_a_release,
];

/// Long enough for a busy machine to renew in time, short enough to see it.
const TTL: Duration = Duration::from_secs(6);

/// For leases that are meant to be lost.
const SHORT: Duration = Duration::from_millis(900);

/// More than anything takes that follows a deadline.
const SOON: Duration = Duration::from_secs(10);

async fn h4_keep_alive_renews_at_a_third_of_the_ttl(store: Store) -> Result<()> {
    let (key, asked) = (fresh_key(), Instant::now());
    let guard = store.locks().lock(&key).ttl(TTL).keep_alive().acquire().await?;
    let first = guard.expires_at();
    until(async || Ok(guard.expires_at() > first)).await?;
    let renewed = asked.elapsed();
    assert!(renewed >= TTL / 3, "renewed after {renewed:?}");
    let record = store.two.get(&key).await?.expect("it is held");
    assert_eq!(record.fence(), guard.fence());
    assert!(record.expires_at() > first);
    assert!(!guard.is_lost() && guard.release().await?);
    Ok(())
}

async fn h4_a_failed_renewal_is_no_loss(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|operation, before| match (operation, before) {
        (Operation::Extend, 0) => Fault::Fail(ErrorCode::ServiceUnavailable),
        (Operation::Extend, 1) => Fault::Fail(ErrorCode::Internal),
        _ => Fault::None,
    });
    let request = locks.lock(fresh_key()).ttl(TTL).keep_alive();
    let guard = request.acquire().await?;
    let first = guard.expires_at();
    until(async || Ok(guard.is_lost() || guard.expires_at() > first)).await?;
    assert!(!guard.is_lost(), "a failure passed for a loss");
    assert!(faulty.count(Operation::Extend) >= 3);
    assert!(guard.release().await?);
    Ok(())
}

async fn h4_without_keep_alive_nothing_is_renewed(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let guard = locks.lock(fresh_key()).ttl(SHORT).acquire().await?;
    guard.lost().await;
    assert_eq!(operations(&faulty), [Operation::Acquire]);
    Ok(())
}

async fn h5_loss_is_signalled_when_the_backend_says_so(store: Store) -> Result<()> {
    let request = store.locks().lock(fresh_key()).ttl(TTL).keep_alive();
    let (guard, held) = (request.acquire().await?, Instant::now());
    let token = guard.lost_token();
    assert!(store.two.release_by_id(guard.id()).await?);
    guard.lost().await;
    let after = held.elapsed();
    assert!(after < TTL, "only the deadline told, after {after:?}");
    assert!(guard.is_lost() && guard.remaining().is_zero());
    token.cancelled().await;
    assert!(!guard.release().await?);
    Ok(())
}

async fn h5_loss_is_signalled_at_the_deadline(store: Store) -> Result<()> {
    let asked = Instant::now();
    let guard = store.locks().lock(fresh_key()).ttl(SHORT).acquire().await?;
    let token = guard.lost_token();
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    assert!(guard.is_lost() && guard.remaining().is_zero());
    token.cancelled().await;
    Ok(())
}

async fn h5_loss_is_signalled_while_a_renewal_hangs(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|operation, _| match operation {
        Operation::Extend => Fault::HoldRequest,
        _ => Fault::None,
    });
    let asked = Instant::now();
    let request = locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    assert_eq!(faulty.count(Operation::Extend), 1);
    Ok(())
}

async fn h5_loss_is_signalled_while_every_renewal_fails(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|operation, _| match operation {
        Operation::Extend => Fault::Fail(ErrorCode::NetworkTimeout),
        _ => Fault::None,
    });
    let asked = Instant::now();
    let request = locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    assert!(faulty.count(Operation::Extend) >= 1);
    Ok(())
}

async fn assert_lost_at_the_deadline(asked: Instant, lost: impl Future<Output = ()>) {
    lost.await;
    let after = asked.elapsed();
    assert!(after + MARGIN >= SHORT, "lost too early, after {after:?}");
    assert!(after < SHORT + SOON, "lost too late, after {after:?}");
}

async fn h5_a_release_is_no_loss(store: Store) -> Result<()> {
    let request = store.locks().lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    let token = guard.lost_token();
    // On a machine so busy that the lease is lost before, there is nothing to see.
    if guard.release().await? {
        sleep(SHORT).await;
        assert!(!token.is_cancelled(), "a release passed for a loss");
    }
    Ok(())
}

async fn h7_a_release_does_not_wait_for_a_renewal_that_hangs(store: Store) -> Result<()> {
    for trouble in [Fault::HoldRequest, Fault::HoldReply] {
        let (faulty, locks) = store.troubled(move |operation, _| match operation {
            Operation::Extend => trouble,
            _ => Fault::None,
        });
        let key = fresh_key();
        let guard = locks.lock(&key).ttl(TTL).keep_alive().acquire().await?;
        until(async || Ok(faulty.count(Operation::Extend) == 1)).await?;
        let token = guard.lost_token();
        assert!(guard.release().await?, "the lease ended");
        assert!(!token.is_cancelled(), "it waited until the lease was lost");
        // What was held up arrives after the release, if it arrives at all.
        faulty.open();
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "it came back");
    }
    Ok(())
}

async fn h7_no_renewal_is_sent_after_a_release(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let request = || locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let released = request().acquire().await?.release().await;
    drop(request().acquire().await?);
    request().acquire().await?.detach();
    locks.shutdown().await?;
    let before = operations(&faulty);
    sleep(SHORT).await;
    assert_eq!(operations(&faulty), before, "a renewal after the end");
    released?;
    Ok(())
}

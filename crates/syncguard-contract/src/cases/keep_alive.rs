//! H4, H5, H7 and H8: renewals, and the loss of a lease.

use std::time::Duration;

use syncguard_core::{Backend, ErrorCode, Operation, Result};
use syncguard_memory::Fault;
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_not_released, assert_released};
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
    h8_max_hold_ends_a_lease_that_is_kept_alive,
    h8_max_hold_stops_the_work_of_run,
];

/// Long enough for a busy machine to renew in time, and short enough to wait for a renewal.
const TTL: Duration = Duration::from_secs(6);

/// The TTL of a lease that is meant to be lost.
const SHORT: Duration = Duration::from_secs(3);

/// Longer than a busy machine takes to report a loss after the deadline.
const SOON: Duration = Duration::from_secs(10);

async fn h4_keep_alive_renews_at_a_third_of_the_ttl(store: Store) -> Result<()> {
    let (key, asked) = (fresh_key(), Instant::now());
    let guard = store.locks().lock(&key).ttl(TTL).keep_alive().acquire().await?;
    let first = guard.expires_at();
    until(async || Ok(guard.expires_at() > first)).await?;
    let renewed = asked.elapsed();
    assert!(
        renewed >= TTL / 3 * 15 / 16,
        "expected the first renewal after a third of the TTL, but it came after {renewed:?}"
    );
    let record = store.two.get(&key).await?.expect(RECORD);
    assert_eq!(record.fence(), guard.fence());
    check!(record.expires_at(), >, first);
    check!(!guard.is_lost());
    assert_released(guard.release().await?);
    Ok(())
}

async fn h4_a_failed_renewal_is_no_loss(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, before| match (operation, before) {
        (Operation::Extend, 0) => Fault::Fail(ErrorCode::ServiceUnavailable),
        (Operation::Extend, 1) => Fault::Fail(ErrorCode::Internal),
        _ => Fault::None,
    });
    let request = locks.lock(fresh_key()).ttl(TTL).keep_alive();
    let guard = request.acquire().await?;
    let first = guard.expires_at();
    until(async || Ok(guard.is_lost() || guard.expires_at() > first)).await?;
    assert!(
        !guard.is_lost(),
        "expected a failed renewal to be retried, but the lease was reported lost"
    );
    check!(faulty.count(Operation::Extend), >=, 3);
    assert_released(guard.release().await?);
    Ok(())
}

async fn h4_without_keep_alive_nothing_is_renewed(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let guard = locks.lock(fresh_key()).ttl(SHORT).acquire().await?;
    guard.lost().await;
    assert_eq!(operations(&faulty), [Operation::Acquire]);
    Ok(())
}

async fn h5_loss_is_signalled_when_the_backend_says_so(store: Store) -> Result<()> {
    let request = store.locks().lock(fresh_key()).ttl(TTL).keep_alive();
    let (guard, held) = (request.acquire().await?, Instant::now());
    let token = guard.lost_token();
    assert_released(store.two.release_by_id(guard.id()).await?);
    guard.lost().await;
    let after = held.elapsed();
    assert!(after < TTL, "expected the loss before the deadline, but it came after {after:?}");
    check!(guard.is_lost());
    check!(guard.remaining().is_zero());
    token.cancelled().await;
    assert_not_released(guard.release().await?);
    Ok(())
}

async fn h5_loss_is_signalled_at_the_deadline(store: Store) -> Result<()> {
    let asked = Instant::now();
    let guard = store.locks().lock(fresh_key()).ttl(SHORT).acquire().await?;
    let token = guard.lost_token();
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    check!(guard.is_lost());
    check!(guard.remaining().is_zero());
    token.cancelled().await;
    Ok(())
}

async fn h5_loss_is_signalled_while_a_renewal_hangs(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, _| match operation {
        Operation::Extend => Fault::HoldRequest,
        _ => Fault::None,
    });
    let asked = Instant::now();
    let request = locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    // None, if the machine was so busy that the acquire took the whole TTL.
    check!(faulty.count(Operation::Extend), <=, 1);
    Ok(())
}

async fn h5_loss_is_signalled_while_every_renewal_fails(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|operation, _| match operation {
        Operation::Extend => Fault::Fail(ErrorCode::NetworkTimeout),
        _ => Fault::None,
    });
    let asked = Instant::now();
    let request = locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    assert_lost_at_the_deadline(asked, guard.lost()).await;
    check!(faulty.count(Operation::Extend), >=, 1);
    Ok(())
}

async fn assert_lost_at_the_deadline(asked: Instant, lost: impl Future<Output = ()>) {
    lost.await;
    let after = asked.elapsed();
    assert!(
        after + MARGIN >= SHORT,
        "expected the loss at the deadline of {SHORT:?}, but it came after {after:?}"
    );
    assert!(
        after < SHORT + SOON,
        "expected the loss at the deadline of {SHORT:?}, but it came after {after:?}"
    );
}

async fn h5_a_release_is_no_loss(store: Store) -> Result<()> {
    let asked = Instant::now();
    let request = store.locks().lock(fresh_key()).ttl(SHORT).keep_alive();
    let guard = request.acquire().await?;
    let token = guard.lost_token();
    // On a machine so busy that the lease can be lost before its release, there is nothing to check.
    if guard.release().await? && asked.elapsed() < SHORT / 2 {
        sleep(SHORT).await;
        assert!(
            !token.is_cancelled(),
            "expected no loss after a release, but the loss was signaled"
        );
    }
    Ok(())
}

async fn h7_a_release_does_not_wait_for_a_renewal_that_hangs(store: Store) -> Result<()> {
    for fault in [Fault::HoldRequest, Fault::HoldReply] {
        let (faulty, locks) = store.with_faults(move |operation, _| match operation {
            Operation::Extend => fault,
            _ => Fault::None,
        });
        let key = fresh_key();
        let guard = locks.lock(&key).ttl(TTL).keep_alive().acquire().await?;
        until(async || Ok(faulty.count(Operation::Extend) == 1)).await?;
        let token = guard.lost_token();
        assert!(guard.release().await?, "expected release to return true, but the lease had ended");
        assert!(
            !token.is_cancelled(),
            "expected release not to wait for the renewal, but the lease was lost first"
        );
        // A held renewal arrives after the release, if it arrives at all.
        faulty.open();
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "expected the late renewal to change nothing");
    }
    Ok(())
}

async fn h7_no_renewal_is_sent_after_a_release(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let request = || locks.lock(fresh_key()).ttl(SHORT).keep_alive();
    let released = request().acquire().await?.release().await;
    drop(request().acquire().await?);
    request().acquire().await?.detach();
    locks.shutdown().await?;
    let before = operations(&faulty);
    sleep(SHORT).await;
    assert_eq!(operations(&faulty), before, "expected no renewal after the end of the lease");
    released?;
    Ok(())
}

async fn h8_max_hold_ends_a_lease_that_is_kept_alive(store: Store) -> Result<()> {
    // Without a renewal it would be lost earlier.
    let limit = TTL + Duration::from_secs(1);
    let (key, asked) = (fresh_key(), Instant::now());
    let request = store.locks().lock(&key).ttl(TTL).keep_alive().max_hold(limit);
    let guard = request.acquire().await?;
    let token = guard.lost_token();
    guard.lost().await;
    let after = asked.elapsed();
    assert!(after >= limit, "expected the loss after {limit:?}, but it came after {after:?}");
    assert!(after < limit + SOON, "expected the loss after {limit:?}, but it came after {after:?}");
    assert!(guard.is_lost() && guard.remaining().is_zero());
    token.cancelled().await;
    let extended = guard.extend(TTL).await;
    assert_eq!(extended.expect_err("the lease is lost").code(), ErrorCode::Lost);
    // A release ends what the server still has.
    guard.release().await?;
    assert_eq!(store.two.get(&key).await?, None);
    Ok(())
}

async fn h8_max_hold_stops_the_work_of_run(store: Store) -> Result<()> {
    let limit = Duration::from_secs(1);
    let (key, locks, asked) = (fresh_key(), store.locks(), Instant::now());
    let request = locks.lock(&key).ttl(TTL).max_hold(limit);
    let outcome = request.run(async |_| std::future::pending::<Result<()>>().await).await;
    let after = asked.elapsed();
    assert_eq!(outcome.expect_err("the work never ends").code(), ErrorCode::Lost);
    assert!(after >= limit, "expected the loss after {limit:?}, but it came after {after:?}");
    locks.shutdown().await?;
    assert_eq!(store.two.get(&key).await?, None);
    Ok(())
}

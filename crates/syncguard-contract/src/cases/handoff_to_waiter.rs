//! G5 to G8: a release that serves the first waiter.
//!
//! If a backend does not support handoff, a release and an attempt must give the same result.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager, LockRequest};
use syncguard_core::{Backend, ErrorCode, Key, Lease, LockRecord, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_not_released, assert_released, assert_rises, code};
use crate::store::{LONG, PAUSE, QUICK, SLOW, Store, fresh_key, operations, until};
use crate::waiter::Waiter;

cases![
    g5_the_first_waiter_is_served_by_one_request,
    g5_a_dropped_guard_serves_the_first_waiter,
    g5_the_new_guard_is_like_any_other,
    g5_the_new_guard_is_kept_alive,
    g5_nothing_is_handed_off_if_it_is_not_declared,
    g6_a_refused_handoff_leaves_no_waiter_stuck,
    g6_a_handoff_whose_reply_is_lost_leaves_no_waiter_stuck,
    g6_a_waiter_that_is_polled_late_keeps_its_grant,
    g6_a_handoff_whose_receiver_gives_up_leaves_no_lease,
    g6_a_handoff_whose_receiver_is_never_polled_leaves_no_lease,
    g7_the_next_waiter_follows_a_receiver_that_leaves,
    g7_the_only_receiver_leaves_no_lease_when_it_leaves,
    g7_a_releaser_that_leaves_delays_no_waiter,
    g8_other_clients_are_served,
];

/// After this time in a row, the runtime releases the key to other processes (G8).
const HANDOFF_LIMIT: Duration = Duration::from_secs(1);

/// A guard whose release is under way, and the waiters for its key.
struct Setup {
    faulty: FaultyBackend,
    locks: LockManager,
    key: Key,
    old: Lease,
    released: Option<Waiter<bool>>,
    waiters: Vec<Waiter<LockGuard>>,
    tokens: Vec<CancellationToken>,
}

impl Setup {
    async fn new(
        store: &Store,
        waiters: usize,
        request: impl Fn(LockRequest) -> LockRequest,
        fault: impl Fn(Operation, usize) -> Fault + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        // On a busy machine the setup can take a second, and then the runtime releases the key
        // plainly (G8). It also does so if an attempt of the first waiter is under way.
        for _ in 0..20 {
            let (faulty, locks) = store.with_faults(fault.clone());
            let key = fresh_key();
            let guard = locks.lock(&key).ttl(LONG).acquire().await?;
            let old = guard.lease();
            let tokens: Vec<_> = (0..waiters).map(|_| CancellationToken::new()).collect();
            let mut queued = Vec::new();
            for token in &tokens {
                let request = request(locks.lock(&key).ttl(LONG * 2).wait(LONG));
                queued.push(Waiter::for_guard(request.cancel(token.clone())).await);
            }
            let released = Some(Waiter::new(guard.release()).await);
            until(async || Ok(ends(&faulty) > 0)).await?;
            if faulty.count(Operation::Handoff) > 0 || !faulty.capabilities().supports_handoff() {
                return Ok(Self { faulty, locks, key, old, released, waiters: queued, tokens });
            }
        }
        panic!("expected a handoff in one of 20 rounds, but there was none");
    }

    fn supports_handoff(&self) -> bool {
        self.faulty.capabilities().supports_handoff()
    }

    /// Waits until every waiter was served, in order.
    async fn serve_all(&mut self) -> Result<()> {
        let mut fence = self.old.fence();
        for waiter in self.waiters.drain(..) {
            let guard = waiter.outcome().await?;
            assert_rises(fence, guard.fence());
            fence = guard.fence();
            assert!(
                guard.release().await?,
                "expected release to return true, but the lease of the waiter was gone"
            );
        }
        Ok(())
    }

    /// Waits for all background work. The key must then be free.
    async fn settled(self, store: &Store) -> Result<()> {
        if let Some(released) = self.released {
            // A release that fails goes on in the background.
            let _ = released.outcome().await;
        }
        self.locks.shutdown().await?;
        assert_eq!(
            store.two.get(&self.key).await?,
            None,
            "expected the key to be free, but a lease remains"
        );
        assert_eq!(self.locks.waiters(), 0);
        Ok(())
    }
}

/// The number of requests that were to end a lease.
fn ends(faulty: &FaultyBackend) -> usize {
    faulty.count(Operation::Handoff) + faulty.count(Operation::Release)
}

fn slowly(request: LockRequest) -> LockRequest {
    request.backoff(SLOW)
}

fn quickly(request: LockRequest) -> LockRequest {
    request.backoff(QUICK)
}

async fn g5_the_first_waiter_is_served_by_one_request(store: Store) -> Result<()> {
    let setup = Setup::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let supports_handoff = setup.supports_handoff();
    let Setup { faulty, old, released, waiters, .. } = setup;
    assert!(
        released.expect("expected a release under way, but there is none").outcome().await?,
        "it was live"
    );
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        if supports_handoff {
            assert_eq!(operations(&faulty), [Operation::Acquire, Operation::Handoff]);
        } else {
            assert_eq!(
                faulty.count(Operation::Handoff),
                0,
                "expected no handoff, because it is not declared"
            );
        }
        assert_rises(old.fence(), guard.fence());
        assert_released(guard.release().await?);
    }
    Ok(())
}

async fn g5_a_dropped_guard_serves_the_first_waiter(store: Store) -> Result<()> {
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let (key, begun) = (fresh_key(), Instant::now());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let fence = guard.fence();
    let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(SLOW);
    let waiter = Waiter::for_guard(request).await;
    drop(guard);
    let receiver = waiter.outcome().await?;
    let handed_off = usize::from(faulty.capabilities().supports_handoff());
    if begun.elapsed() < HANDOFF_LIMIT {
        assert_eq!(faulty.count(Operation::Handoff), handed_off);
    }
    assert_rises(fence, receiver.fence());
    assert_released(receiver.release().await?);
    Ok(())
}

async fn g5_the_new_guard_is_like_any_other(store: Store) -> Result<()> {
    let setup = Setup::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let Setup { key, old, waiters, .. } = setup;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        let record = store.two.get(&key).await?.expect(RECORD);
        assert_eq!((guard.key(), guard.id()), (record.key(), record.id()));
        assert_eq!((guard.fence(), guard.expires_at()), (record.fence(), record.expires_at()));
        assert_rises(old.fence(), guard.fence());
        check!(guard.id() != old.id());
        assert_eq!(store.two.find(old.id()).await?, None, "expected the old lease to be gone");
        // The TTL is that of the waiter, not that of the old holder.
        assert_eq!(record.expires_at().since(record.acquired_at()), LONG * 2);
        check!(LONG, <, guard.remaining());
        check!(guard.remaining(), <=, LONG * 2);
        check!(!guard.is_lost());
        let (fence, before) = (guard.fence(), guard.expires_at());
        let after = guard.extend(LONG * 3).await?;
        check!(after.since(before), >=, LONG);
        assert_eq!((guard.fence(), guard.expires_at()), (fence, after));
        assert_released(guard.release().await?);
        store.assert_free(&key).await?;
    }
    Ok(())
}

async fn g5_the_new_guard_is_kept_alive(store: Store) -> Result<()> {
    let kept = |request: LockRequest| slowly(request).ttl(Duration::from_secs(3)).keep_alive();
    let setup = Setup::new(&store, 1, kept, |_, _| Fault::None).await?;
    let Setup { faulty, waiters, .. } = setup;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        until(async || Ok(faulty.count(Operation::Extend) > 0)).await?;
        assert_released(store.two.release_by_id(guard.id()).await?);
        guard.lost().await;
        check!(guard.is_lost());
        check!(guard.remaining().is_zero());
        assert_not_released(guard.release().await?);
    }
    Ok(())
}

async fn g5_nothing_is_handed_off_if_it_is_not_declared(store: Store) -> Result<()> {
    let faulty = store.faulty(|_, _| Fault::None).without_handoff();
    let locks = LockManager::new(faulty.clone());
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let waiter = Waiter::for_fence(quickly(locks.lock(&key).ttl(LONG).wait(LONG))).await;
    let fence = guard.fence();
    assert_released(guard.release().await?);
    assert_rises(fence, waiter.outcome().await?);
    assert_eq!(faulty.count(Operation::Handoff), 0);
    assert_eq!(faulty.count(Operation::Release), 2);
    store.assert_free(&key).await?;
    Ok(())
}

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

/// The workers of one manager hand the key to each other until a worker of another manager is
/// served. Their queue is never empty, and they hardly ever send an attempt.
async fn g8_other_clients_are_served(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.with_faults(|_, _| Fault::None);
    let served = Arc::new(AtomicBool::new(false));
    let grants = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..20 {
        let (key, locks) = (key.clone(), locks.clone());
        let (served, grants) = (served.clone(), grants.clone());
        workers.spawn(async move {
            while !served.load(Ordering::SeqCst) {
                let request = locks.lock(&key).ttl(LONG).wait(LONG);
                let backoff = Backoff::fixed(Duration::from_millis(500));
                let guard = request.backoff(backoff).acquire().await?;
                grants.fetch_add(1, Ordering::SeqCst);
                assert_released(guard.release().await?);
            }
            Result::Ok(())
        });
    }
    until(async || Ok(grants.load(Ordering::SeqCst) >= 3)).await?;
    let other = LockManager::new(store.two.clone());
    let request = other.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
    let guard = request.acquire().await?;
    served.store(true, Ordering::SeqCst);
    assert_released(guard.release().await?);
    workers.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
    if faulty.capabilities().receives_notifications() {
        let calls = operations(&faulty);
        let in_a_row = calls.split(|call| *call != Operation::Handoff).map(<[_]>::len);
        assert!(
            in_a_row.max() < Some(16),
            "expected fewer than 16 handoffs in a row, but got more: {calls:?}"
        );
    }
    store.assert_free(&key).await?;
    Ok(())
}

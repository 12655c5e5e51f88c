//! A guard whose release is under way, for the cases of G5 to G7.

use syncguard::{CancellationToken, LockGuard, LockManager, LockRequest};
use syncguard_core::{Backend, Key, Lease, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};

use crate::expect::assert_rises;
use crate::store::{LONG, QUICK, SLOW, Store, fresh_key, until};
use crate::waiter::Waiter;

/// A guard whose release is under way, and the waiters for its key.
pub(crate) struct Setup {
    pub(crate) faulty: FaultyBackend,
    pub(crate) locks: LockManager,
    pub(crate) key: Key,
    pub(crate) old: Lease,
    pub(crate) released: Option<Waiter<bool>>,
    pub(crate) waiters: Vec<Waiter<LockGuard>>,
    pub(crate) tokens: Vec<CancellationToken>,
}

impl Setup {
    pub(crate) async fn new(
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

    pub(crate) fn supports_handoff(&self) -> bool {
        self.faulty.capabilities().supports_handoff()
    }

    /// Waits until every waiter was served, in order.
    pub(crate) async fn serve_all(&mut self) -> Result<()> {
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
    pub(crate) async fn settled(self, store: &Store) -> Result<()> {
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
pub(crate) fn ends(faulty: &FaultyBackend) -> usize {
    faulty.count(Operation::Handoff) + faulty.count(Operation::Release)
}

pub(crate) fn slowly(request: LockRequest) -> LockRequest {
    request.backoff(SLOW)
}

pub(crate) fn quickly(request: LockRequest) -> LockRequest {
    request.backoff(QUICK)
}

//! Ten thousand waiters for one key in one lock manager.

#![allow(clippy::unwrap_used, reason = "an assertion of a trial may panic")]

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, LockManager};
use syncguard_core::{Fence, Key, Result};
use tokio::task::JoinHandle;

pub(crate) const CROWD: usize = 10_000;

/// The waiters, in the order of the queue. Each acquires the lock and releases it at once.
pub(crate) struct Crowd(Vec<JoinHandle<Result<Fence>>>);

impl Crowd {
    /// Queues the waiters for a key that is held.
    pub(crate) async fn behind(locks: &LockManager, key: &Key) -> Self {
        let long = Duration::from_secs(3_600);
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let request = locks.lock(key).ttl(long).wait(long).backoff(Backoff::fixed(long));
            let mut acquire = Box::pin(request.acquire());
            // The first poll puts it in the queue.
            let first = poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context))).await;
            assert!(first.is_pending(), "the key was granted twice");
            crowd.push(tokio::task::spawn(async move {
                let guard = acquire.await?;
                let fence = guard.fence();
                assert!(guard.release().await?, "the lease was lost");
                Ok(fence)
            }));
        }
        assert_eq!(locks.waiters(), CROWD);
        Self(crowd)
    }

    /// Waits until all waiters were served, and checks that the queue kept their order.
    pub(crate) async fn served(self) -> Result<()> {
        let mut fences = Vec::new();
        for waiter in self.0 {
            fences.push(waiter.await.unwrap()?);
        }
        assert!(fences.is_sorted(), "not first come first served");
        Ok(())
    }
}

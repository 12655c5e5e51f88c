//! As many as may wait for one key through one lock manager.

#![allow(clippy::unwrap_used, reason = "an assertion of a trial may panic")]

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, LockManager};
use syncguard_core::{Fence, Key, Result};
use tokio::task::JoinHandle;

pub(crate) const CROWD: usize = 10_000;

/// Those who wait, the first in line first. Each gets the lock and releases it at once.
pub(crate) struct Crowd(Vec<JoinHandle<Result<Fence>>>);

impl Crowd {
    /// Sends them to a key that is held.
    pub(crate) async fn behind(locks: &LockManager, key: &Key) -> Self {
        let long = Duration::from_secs(3_600);
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let request = locks.lock(key).ttl(long).wait(long).backoff(Backoff::fixed(long));
            let mut waits = Box::pin(request.acquire());
            // From here on it has its place.
            let first = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context))).await;
            assert!(first.is_pending(), "the key was granted twice");
            crowd.push(tokio::task::spawn(async move {
                let guard = waits.await?;
                let fence = guard.fence();
                assert!(guard.release().await?, "the lease was lost");
                Ok(fence)
            }));
        }
        assert_eq!(locks.waiters(), CROWD);
        Self(crowd)
    }

    /// Waits until all of them had their turns, in the order in which they came.
    pub(crate) async fn served(self) -> Result<()> {
        let mut fences = Vec::new();
        for waiter in self.0 {
            fences.push(waiter.await.unwrap()?);
        }
        assert!(fences.is_sorted(), "not first come first served");
        Ok(())
    }
}

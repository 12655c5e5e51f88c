//! Waiters for a key, one behind the other.

use std::future::{Future, poll_fn};
use std::task::Poll;

use syncguard::{LockGuard, LockRequest};
use syncguard_core::{Fence, Result};
use tokio::task::JoinSet;

/// A waiter in the queue. It leaves when this value is dropped.
pub(crate) struct Waiter<T>(JoinSet<Result<T>>);

impl<T: Send + 'static> Waiter<T> {
    /// Adds a waiter at the end of the queue. It is there when this returns.
    pub(crate) async fn new(wait: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        let mut wait = Box::pin(wait);
        let first = poll_fn(|context| Poll::Ready(wait.as_mut().poll(context))).await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            match first {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => wait.await,
            }
        });
        Self(task)
    }

    /// Waits for the result.
    pub(crate) async fn outcome(mut self) -> Result<T> {
        let outcome = self.0.join_next().await.expect("there is one task");
        outcome.expect("expected no panic")
    }

    /// Drops the future of the waiter.
    pub(crate) async fn leave(mut self) {
        self.0.shutdown().await;
    }
}

impl Waiter<LockGuard> {
    pub(crate) async fn for_guard(request: LockRequest) -> Self {
        Self::new(request.acquire()).await
    }
}

impl Waiter<Fence> {
    /// Acquires the lock and releases it at once. Fences rise, so they show the order of the
    /// waiters.
    pub(crate) async fn for_fence(request: LockRequest) -> Self {
        Self::new(async move {
            let guard = request.acquire().await?;
            let fence = guard.fence();
            assert!(
                guard.release().await?,
                "expected release to return true, but the lease was lost"
            );
            Ok(fence)
        })
        .await
    }
}

/// Waits until all waiters were served, which must happen in this order.
pub(crate) async fn in_order(waiters: impl IntoIterator<Item = Waiter<Fence>>) -> Result<()> {
    let mut fences = Vec::new();
    for waiter in waiters {
        fences.push(waiter.outcome().await?);
    }
    assert!(
        fences.is_sorted(),
        "expected the waiters to be served in order, but got fences {fences:?}"
    );
    Ok(())
}

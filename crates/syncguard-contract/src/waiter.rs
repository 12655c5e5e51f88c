//! Those who wait for a key, one behind the other.

use std::future::{Future, poll_fn};
use std::task::Poll;

use syncguard::{LockGuard, LockRequest};
use syncguard_core::{Fence, Result};
use tokio::task::JoinSet;

/// One who stands in line. It leaves when this is dropped.
pub(crate) struct Waiter<T>(JoinSet<Result<T>>);

impl<T: Send + 'static> Waiter<T> {
    /// Sends somebody to the end of the line: where it stands once this is over.
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

    /// What became of it.
    pub(crate) async fn outcome(mut self) -> Result<T> {
        let outcome = self.0.join_next().await.expect("there is one task");
        outcome.expect("it does not panic")
    }

    /// Drops its future.
    pub(crate) async fn drop_out(mut self) {
        self.0.shutdown().await;
    }
}

impl Waiter<LockGuard> {
    pub(crate) async fn for_guard(request: LockRequest) -> Self {
        Self::new(request.acquire()).await
    }
}

impl Waiter<Fence> {
    /// Gets the lock and releases it at once. Fences rise, so they tell who came before whom.
    pub(crate) async fn for_turn(request: LockRequest) -> Self {
        Self::new(async move {
            let guard = request.acquire().await?;
            let fence = guard.fence();
            assert!(guard.release().await?, "the lease was lost");
            Ok(fence)
        })
        .await
    }
}

/// Waits until all of them had their turns, which must be in this order.
pub(crate) async fn in_order(waiters: impl IntoIterator<Item = Waiter<Fence>>) -> Result<()> {
    let mut fences = Vec::new();
    for waiter in waiters {
        fences.push(waiter.outcome().await?);
    }
    assert!(fences.is_sorted(), "not first come first served: {fences:?}");
    Ok(())
}

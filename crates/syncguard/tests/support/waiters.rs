//! Waiters for one key, and assertions about their queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub const MS: Duration = Duration::from_millis(1);
/// Longer than any test.
pub const HOUR: Duration = Duration::from_secs(3600);

pub type Waiter = JoinHandle<syncguard::Result<LockGuard>>;

/// Adds a waiter at the end of the queue.
pub async fn waiter(locks: &LockManager) -> Waiter {
    cancellable(locks, &CancellationToken::new()).await
}

/// Adds a waiter that leaves when the token is cancelled.
pub async fn cancellable(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let before = locks.waiters();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).cancel(token.clone());
    let waiter = Handle::current().spawn(request.acquire());
    // The loop is bounded, so that a gauge that does not move fails the test.
    for _ in 0..1_000_000 {
        if locks.waiters() > before {
            return waiter;
        }
        tokio::task::yield_now().await;
    }
    panic!("expected one more waiter in the queue, but the count did not change");
}

pub async fn waiters(locks: &LockManager, how_many: usize) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for _ in 0..how_many {
        waiters.push(waiter(locks).await);
    }
    waiters
}

/// A waiter with a long backoff, so that only a release can wake it soon.
pub fn with_long_backoff(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(HOUR / 60));
    Handle::current().spawn(request.cancel(token.clone()).acquire())
}

/// Waits for all waiters in order, and releases each guard. Returns the fences.
pub async fn served_in_order(waiters: Vec<Waiter>) -> Vec<u64> {
    let mut fences = Vec::new();
    for waiter in waiters {
        let guard = waiter.await.unwrap().unwrap();
        fences.push(guard.fence().get());
        assert!(guard.release().await.unwrap());
    }
    fences
}

/// Polls a future once with a waker that does nothing: it sleeps until the test polls it again.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A map of queues that only grows would leak one entry per key.
pub fn assert_no_queue_remains(locks: &LockManager) {
    let shown = format!("{locks:?}");
    assert!(shown.contains("keys: 0"), "expected no queue, but got {shown}");
}

/// Drops a release while its handoff is under way, and returns the receiver, which sleeps. Both go
/// on: the receiver is served, and a release that finds nothing then ends the queue.
pub async fn receiver_of_a_dropped_release(
    backend: &FaultyBackend,
    locks: &LockManager,
) -> Pin<Box<impl Future<Output = syncguard::Result<LockGuard>> + use<>>> {
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut receiver = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(poll_once(receiver.as_mut()).is_pending());
    backend.next(Operation::Handoff, Fault::DelayRequest(10 * MS));
    backend.next(Operation::Release, Fault::DelayRequest(20 * MS));
    tokio::select! {
        biased;
        _ = held.release() => panic!("expected the release to wait for its handoff, but it ended"),
        () = sleep(MS) => {}
    }
    sleep(50 * MS).await;
    receiver
}

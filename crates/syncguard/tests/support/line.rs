//! Those who wait for one key, and what is said about their line.

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

/// One more waiter, at the end of the line.
pub async fn waiter(locks: &LockManager) -> Waiter {
    cancellable(locks, &CancellationToken::new()).await
}

/// One that leaves when the token is cancelled.
pub async fn cancellable(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let before = locks.waiters();
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).cancel(token.clone());
    let waiter = Handle::current().spawn(request.acquire());
    // Not for ever: a gauge that does not move is a failure.
    for _ in 0..1_000_000 {
        if locks.waiters() > before {
            return waiter;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not stand in line");
}

pub async fn waiters(locks: &LockManager, how_many: usize) -> Vec<Waiter> {
    let mut waiters = Vec::new();
    for _ in 0..how_many {
        waiters.push(waiter(locks).await);
    }
    waiters
}

/// One who waits long for its timer, so that something else must tell it.
pub fn patient(locks: &LockManager, token: &CancellationToken) -> Waiter {
    let request = locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(HOUR / 60));
    Handle::current().spawn(request.cancel(token.clone()).acquire())
}

/// Waits for all, one after the other, and checks that each is served next.
pub async fn served_in_order(waiters: Vec<Waiter>) -> Vec<u64> {
    let mut fences = Vec::new();
    for waiter in waiters {
        let guard = waiter.await.unwrap().unwrap();
        fences.push(guard.fence().get());
        assert!(guard.release().await.unwrap());
    }
    fences
}

/// Polls a future that is not woken afterwards: it is asleep until somebody polls it again.
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A map of queues that only grows would leak one entry per key.
pub fn assert_no_line_remains(locks: &LockManager) {
    let shown = format!("{locks:?}");
    // REMOVE the second condition when `LockManager` prints `keys: N`.
    let none_remains =
        shown.contains("keys: 0") || shown.contains("lines: Lines(Mutex { data: {},");
    assert!(none_remains, "expected no queue, but got {shown}");
}

/// Drops a release at a moment when its handoff is under way and its heir, which is returned, is
/// asleep. Both go on: the heir is served, and then a release finds nothing left, which ends the line.
pub async fn heir_of_a_dropped_release(
    backend: &FaultyBackend,
    locks: &LockManager,
) -> Pin<Box<impl Future<Output = syncguard::Result<LockGuard>> + use<>>> {
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut heir = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(poll_once(heir.as_mut()).is_pending());
    backend.next(Operation::Handoff, Fault::DelayRequest(10 * MS));
    backend.next(Operation::Release, Fault::DelayRequest(20 * MS));
    tokio::select! {
        biased;
        _ = held.release() => panic!("it takes longer"),
        () = sleep(MS) => {}
    }
    sleep(50 * MS).await;
    heir
}

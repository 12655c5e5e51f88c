//! The store under test as a case sees it, and steps that several cases share.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, Jitter, LockManager, LockRequest};
use syncguard_core::{Acquired, AnyBackend, Backend, Key, Lease, LockId, Operation, Result, Ttl};
use syncguard_memory::Notifications::Lossy;
use syncguard_memory::{Fault, FaultyBackend};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::elector::Elector;
use crate::expect::{assert_held, granted};

/// A TTL that outlives every case, so that a busy machine cannot end such a lease.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

/// The precision of comparisons: stores count whole milliseconds, and two clocks of one machine
/// differ a little.
pub(crate) const GRAIN: Duration = Duration::from_millis(5);

/// How much earlier than its lease a holder stops, if the store removes a lease exactly at its TTL.
pub(crate) const MARGIN: Duration = Duration::from_millis(5);

/// How long a case sleeps before it checks a condition again.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between two attempts.
pub(crate) const SLOW: Backoff = Backoff::fixed(Duration::from_secs(10)).with_jitter(Jitter::None);

pub(crate) const QUICK: Backoff = Backoff::fixed(PAUSE).with_jitter(Jitter::None);

/// Longer than an interrupted wait takes, and shorter than a pause of [`SLOW`].
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// Which notifications reach the clients of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notifications {
    /// All that the backend under test sends.
    Passed,
    /// None, and the capabilities of the client say so.
    Off,
    /// Every second one. The others are lost.
    Lossy,
}

/// Two clients of the store under test.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) one: AnyBackend,
    pub(crate) two: AnyBackend,
    notifications: Notifications,
    elector: Elector,
}

impl Store {
    pub(crate) fn new(one: AnyBackend, two: AnyBackend) -> Self {
        Self { one, two, notifications: Notifications::Passed, elector: Elector::Sound }
    }

    /// The same store for clients that do not receive all notifications.
    pub(crate) fn with_notifications(&self, notifications: Notifications) -> Self {
        let client = |client: &AnyBackend| {
            let client = FaultyBackend::new(client.clone());
            match notifications {
                Notifications::Passed => {}
                Notifications::Off => return AnyBackend::new(client.without_notifications()),
                Notifications::Lossy => client.set_notifications(Lossy),
            }
            AnyBackend::new(client)
        };
        Self {
            one: client(&self.one),
            two: client(&self.two),
            notifications,
            elector: self.elector,
        }
    }

    /// The same store with another elector.
    pub(crate) const fn with_elector(mut self, elector: Elector) -> Self {
        self.elector = elector;
        self
    }

    pub(crate) const fn elector(&self) -> Elector {
        self.elector
    }

    /// Whether a waiter is certain to be notified of a release.
    pub(crate) fn notifies(&self) -> bool {
        self.one.capabilities().receives_notifications()
            && self.notifications == Notifications::Passed
    }

    /// The backoff of a waiter behind another client. If a notification must wake it, no timer can.
    pub(crate) fn backoff(&self) -> Backoff {
        if self.notifies() { SLOW } else { QUICK }
    }

    /// A request that waits longer than any case, with the backoff of [`backoff`](Self::backoff).
    pub(crate) fn long_wait(&self, request: LockRequest) -> LockRequest {
        request.ttl(LONG).wait(LONG).backoff(self.backoff())
    }

    /// One of the two clients: the first for an even number.
    pub(crate) fn client(&self, index: usize) -> AnyBackend {
        [&self.one, &self.two][index % 2].clone()
    }

    /// Acquires a key that must be free.
    pub(crate) async fn take(&self, key: &Key, duration: Duration) -> Result<Lease> {
        let acquired = self.one.acquire(key, &fresh_id(), ttl(duration)).await?;
        Ok(granted(acquired))
    }

    /// Acquires a key that must be free, and waits until the lease is dead.
    pub(crate) async fn take_and_let_die(&self, key: &Key) -> Result<Lease> {
        let lease = self.take(key, Duration::from_millis(1)).await?;
        self.until_free(key).await?;
        Ok(lease)
    }

    /// Waits until a lookup finds no lease of the key.
    pub(crate) async fn until_free(&self, key: &Key) -> Result<()> {
        until(async || Ok(self.one.get(key).await?.is_none())).await
    }

    /// A manager on the first client.
    pub(crate) fn locks(&self) -> LockManager {
        LockManager::new(self.one.clone())
    }

    /// The first client with faults, and a manager on it.
    pub(crate) fn with_faults(
        &self,
        fault: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static,
    ) -> (FaultyBackend, LockManager) {
        let faulty = self.faulty(fault);
        (faulty.clone(), LockManager::new(faulty))
    }

    /// The first client with faults.
    pub(crate) fn faulty(
        &self,
        fault: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static,
    ) -> FaultyBackend {
        let faulty = FaultyBackend::new(self.one.clone());
        faulty.on_call(fault);
        faulty
    }

    /// Tries to acquire the key, which must be held.
    pub(crate) async fn assert_held(&self, key: &Key) -> Result<()> {
        assert_held(&self.two.acquire(key, &fresh_id(), ttl(LONG)).await?);
        Ok(())
    }

    /// Acquires the key, which must be free.
    pub(crate) async fn assert_free(&self, key: &Key) -> Result<()> {
        granted(self.two.acquire(key, &fresh_id(), ttl(LONG)).await?);
        Ok(())
    }

    /// Whether an attempt to acquire the key finds it held.
    pub(crate) async fn is_held(&self, key: &Key) -> Result<bool> {
        let acquired = self.two.acquire(key, &fresh_id(), ttl(LONG)).await?;
        Ok(matches!(acquired, Acquired::Held { .. }))
    }
}

/// The operations that were called so far, in order.
pub(crate) fn operations(faulty: &FaultyBackend) -> Vec<Operation> {
    faulty.history().iter().map(|call| call.operation()).collect()
}

/// How many attempts were made under each id, in the order in which the ids appeared.
pub(crate) fn attempts_by_id(faulty: &FaultyBackend) -> Vec<usize> {
    let mut counts: Vec<(LockId, usize)> = Vec::new();
    for call in faulty.calls(Operation::Acquire) {
        let Some(id) = call.id() else { continue };
        match counts.iter_mut().find(|(known, _)| known == id) {
            Some((_, count)) => *count += 1,
            None => counts.push((id.clone(), 1)),
        }
    }
    counts.into_iter().map(|(_, count)| count).collect()
}

/// Waits until a condition holds. The time limit of the case bounds the wait.
pub(crate) async fn until(condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
    while !condition().await? {
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits until a condition holds, then acts.
pub(crate) async fn when(
    condition: impl AsyncFn() -> Result<bool>,
    act: impl FnOnce(),
) -> Result<()> {
    until(condition).await?;
    act();
    Ok(())
}

/// More polls than any operation takes if the store answers.
pub(crate) const MOST_POLLS: usize = 1_000;

/// Polls a future at most `times` times and drops it. Returns its output if it completed.
pub(crate) async fn poll_then_drop<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Makes one attempt and repeats a transient failure with the same id, as the runtime does (W4).
/// Racers need it, because some stores refuse requests when there are too many.
pub(crate) async fn contend(client: &AnyBackend, key: &Key, id: &LockId) -> Result<Acquired> {
    loop {
        match client.acquire(key, id, ttl(LONG)).await {
            Err(error) if error.is_transient() => sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Runs `n` futures that start at the same moment. The outputs have no particular order.
pub(crate) async fn race<T, F>(n: usize, racer: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(n));
    let racers = (0..n).map(|index| {
        let (start, racer) = (start.clone(), racer(index));
        async move {
            start.wait().await;
            racer.await
        }
    });
    racers.collect::<JoinSet<T>>().join_all().await
}

/// A key that no other case uses.
pub(crate) fn fresh_key() -> Key {
    key(&format!("syncguard-contract:{}", fresh_id().as_str()))
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("the suite uses legal keys")
}

pub(crate) fn fresh_id() -> LockId {
    LockId::random().expect("the operating system gives random bytes")
}

pub(crate) fn ttl(duration: Duration) -> Ttl {
    duration.try_into().expect("the suite uses legal TTLs")
}

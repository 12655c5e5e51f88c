//! The store under test as a case sees it, and the steps that cases have in common.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, Jitter, LockManager};
use syncguard_core::{
    Acquired, AnyBackend, Backend, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl,
};
use syncguard_memory::Notifications::Lossy;
use syncguard_memory::{Fault, FaultyBackend};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A TTL that outlives every case, so that a busy machine cannot end such a lease.
pub(crate) const LONG: Duration = Duration::from_secs(3_600);

/// Stores count whole milliseconds, and two clocks of one machine may run a little apart.
pub(crate) const GRAIN: Duration = Duration::from_millis(5);

/// How much earlier than its lease a holder stops, if the store removes a lease exactly at its TTL.
pub(crate) const MARGIN: Duration = Duration::from_millis(5);

/// How long a case sleeps between two looks at something that it waits for.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// As long as pauses between attempts get.
pub(crate) const SLOW: Backoff = Backoff::fixed(Duration::from_secs(10)).with_jitter(Jitter::None);

pub(crate) const QUICK: Backoff = Backoff::fixed(PAUSE).with_jitter(Jitter::None);

/// Longer than any wait that is cut short may take, shorter than a slow pause.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// Which notifications reach the clients of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notifications {
    /// All that the backend under test sends.
    Passed,
    /// None, and its capabilities say so.
    Off,
    /// Every second one: the others are lost on their way.
    Lossy,
}

/// Two clients of the store under test.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) one: AnyBackend,
    pub(crate) two: AnyBackend,
    notifications: Notifications,
}

impl Store {
    pub(crate) fn new(one: AnyBackend, two: AnyBackend) -> Self {
        Self { one, two, notifications: Notifications::Passed }
    }

    /// The same store, for clients who do not get all of its notifications.
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
        Self { one: client(&self.one), two: client(&self.two), notifications }
    }

    /// Whether whoever waits is sure to hear of a release.
    pub(crate) fn wakes(&self) -> bool {
        self.one.capabilities().receives_notifications()
            && self.notifications == Notifications::Passed
    }

    /// How those pause who wait for another client. Where they are woken, it is by nothing else.
    pub(crate) fn backoff(&self) -> Backoff {
        if self.wakes() { SLOW } else { QUICK }
    }

    /// One of the two clients, by turns.
    pub(crate) fn client(&self, turn: usize) -> AnyBackend {
        [&self.one, &self.two][turn % 2].clone()
    }

    /// Takes a key that must be free.
    pub(crate) async fn take(&self, key: &Key, duration: Duration) -> Result<Lease> {
        let acquired = self.one.acquire(key, &fresh_id(), ttl(duration)).await?;
        Ok(granted(acquired))
    }

    /// Takes a key that must be free, and waits until the lease is dead.
    pub(crate) async fn take_and_let_die(&self, key: &Key) -> Result<Lease> {
        let lease = self.take(key, Duration::from_millis(1)).await?;
        self.until_free(key).await?;
        Ok(lease)
    }

    /// Waits until the store itself says that nobody holds this key.
    pub(crate) async fn until_free(&self, key: &Key) -> Result<()> {
        until(async || Ok(self.one.get(key).await?.is_none())).await
    }

    /// Locks through the first client.
    pub(crate) fn locks(&self) -> LockManager {
        LockManager::new(self.one.clone())
    }

    /// The first client, with trouble on the way, and locks through that.
    pub(crate) fn troubled(
        &self,
        trouble: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static,
    ) -> (FaultyBackend, LockManager) {
        let faulty = self.faulty(trouble);
        (faulty.clone(), LockManager::new(faulty))
    }

    /// The first client, with trouble on the way.
    pub(crate) fn faulty(
        &self,
        trouble: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static,
    ) -> FaultyBackend {
        let faulty = FaultyBackend::new(self.one.clone());
        faulty.on_call(trouble);
        faulty
    }

    /// Whether somebody holds the key, as an attempt to take it finds.
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

/// Waits until a condition holds. What must happen within a time says so itself; a case that waits
/// for ever is stopped.
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

/// More polls than any operation takes on a store that answers.
pub(crate) const MOST_POLLS: usize = 1_000;

/// Polls a future so many times at most, and drops it. What it gave, if it got so far.
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

/// The lease of an attempt that must have succeeded.
#[track_caller]
pub(crate) fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Held { .. } => panic!("a free key was not granted"),
    }
}

/// The code of a failure.
#[track_caller]
pub(crate) fn code<T>(outcome: Result<T>) -> ErrorCode {
    match outcome {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.code(),
    }
}

/// An attempt as the runtime makes it: a transient failure is repeated with the same id (W4). For
/// racers, whom some stores turn away when there are too many.
pub(crate) async fn contend(client: &AnyBackend, key: &Key, id: &LockId) -> Result<Acquired> {
    loop {
        match client.acquire(key, id, ttl(LONG)).await {
            Err(error) if error.is_transient() => sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Runs `n` futures that start at the same moment, and returns what they gave in no special order.
pub(crate) async fn race<T, F>(n: usize, racer: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(n));
    let racers = (0..n).map(|turn| {
        let (start, racer) = (start.clone(), racer(turn));
        async move {
            start.wait().await;
            racer.await
        }
    });
    racers.collect::<JoinSet<T>>().join_all().await
}

/// A key that nobody else uses.
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

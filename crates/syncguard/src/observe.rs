//! One event and one span per operation on the backend.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    Acquired, AnyBackend, Backend, Capabilities, ErrorCode, Fingerprint, Key, Lease, LockId,
    LockRecord, Operation, Result, Ttl,
};
use tokio::time::Instant;
use tracing::{Instrument, debug_span, field};

use crate::LockGuard;

/// What happened in one operation on the backend, or in one wait for a lock.
///
/// Every [`acquire`](crate::LockRequest::acquire) and [`run`](crate::LockRequest::run) ends with an
/// event of [`Operation::Wait`]: how long it waited, and with how many attempts. Each attempt has an
/// event of its own as well. What never reaches the backend has none, such as an extend of a lease
/// whose time is up; nor has an operation whose future is dropped.
#[derive(Clone, Debug)]
pub struct Event {
    operation: Operation,
    outcome: Outcome,
    key: Option<Key>,
    id: Option<LockId>,
    duration: Duration,
    attempts: Option<u32>,
    raw_names: bool,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what was asked.
    Done,
    /// It failed.
    Failed(ErrorCode),
    /// It worked, and the answer is no.
    Refused(Reason),
}

/// Why the answer of an operation is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The lease had ended by time.
    Expired,
    /// Somebody else holds the key.
    Locked,
    /// No live lease was found.
    NotFound,
}

impl Reason {
    /// The name of the reason, as SyncGuard spells it in every language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Locked => "locked",
            Self::NotFound => "not-found",
        }
    }
}

impl Event {
    /// Which operation it was.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The fingerprint of the key, where the caller had one.
    #[must_use]
    pub fn key(&self) -> Option<Fingerprint> {
        self.key.as_ref().map(Key::fingerprint)
    }

    /// The fingerprint of the lock id, where the caller had one. Of a handoff it is the id of the new
    /// lease; the old one, which ends with it, has no event of its own.
    #[must_use]
    pub fn id(&self) -> Option<Fingerprint> {
        self.id.as_ref().map(LockId::fingerprint)
    }

    /// The key itself, if raw names were asked for.
    #[must_use]
    pub fn raw_key(&self) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.raw_names)
    }

    /// The lock id itself, if raw names were asked for.
    #[must_use]
    pub fn raw_id(&self) -> Option<&LockId> {
        self.id.as_ref().filter(|_| self.raw_names)
    }

    /// How long the operation took.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// How many attempts a wait took: none where it was served from within the process. `None` for
    /// the other operations.
    #[must_use]
    pub const fn attempts(&self) -> Option<u32> {
        self.attempts
    }
}

pub(crate) type OnEvent = dyn Fn(&Event) + Send + Sync;

/// Where events go.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) on_event: Arc<OnEvent>,
    pub(crate) raw_names: bool,
}

impl Observer {
    /// An observer that panics does not harm the operation.
    fn tell(&self, event: &Event) {
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_event)(event)));
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("raw_names", &self.raw_names).finish_non_exhaustive()
    }
}

/// The backend, with a span and an event around every operation.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) backend: AnyBackend,
    pub(crate) observer: Option<Observer>,
}

impl Observed {
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    pub(crate) async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let refused = |acquired: &Acquired| {
            matches!(acquired, Acquired::Held { .. }).then_some(Reason::Locked)
        };
        let call = self.backend.acquire(key, id, ttl);
        self.observe(Operation::Acquire, Some(key), Some(id), call, refused).await
    }

    pub(crate) async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.backend.extend(lease, ttl);
        let (key, id) = (Some(lease.key()), Some(lease.id()));
        self.observe(Operation::Extend, key, id, call, |lease| gone(lease.is_some(), false)).await
    }

    /// `over` says whether the lease has ended by time, for the reason of a refusal.
    pub(crate) async fn release(&self, lease: &Lease, over: bool) -> Result<bool> {
        let call = self.backend.release(lease);
        let (key, id) = (Some(lease.key()), Some(lease.id()));
        self.observe(Operation::Release, key, id, call, |released| gone(*released, over)).await
    }

    pub(crate) async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.backend.extend_by_id(id, ttl);
        self.observe(Operation::Extend, None, Some(id), call, |lease| gone(lease.is_some(), false))
            .await
    }

    pub(crate) async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let call = self.backend.release_by_id(id);
        self.observe(Operation::Release, None, Some(id), call, |done| gone(*done, false)).await
    }

    pub(crate) async fn handoff(
        &self,
        lease: &Lease,
        id: &LockId,
        ttl: Ttl,
    ) -> Result<Option<Lease>> {
        let call = self.backend.handoff(lease, id, ttl);
        let (key, id) = (Some(lease.key()), Some(id));
        self.observe(Operation::Handoff, key, id, call, |lease| gone(lease.is_some(), false)).await
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let call = self.backend.get(key);
        self.observe(Operation::Get, Some(key), None, call, |found| gone(found.is_some(), false))
            .await
    }

    pub(crate) async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let call = self.backend.find(id);
        self.observe(Operation::Find, None, Some(id), call, |found| gone(found.is_some(), false))
            .await
    }

    async fn observe<T>(
        &self,
        operation: Operation,
        key: Option<&Key>,
        id: Option<&LockId>,
        call: impl Future<Output = Result<T>>,
        refused: impl FnOnce(&T) -> Option<Reason>,
    ) -> Result<T> {
        let span = debug_span!(
            "syncguard",
            operation = operation.as_str(),
            key = key.map(|key| field::display(key.fingerprint())),
            id = id.map(|id| field::display(id.fingerprint())),
            code = field::Empty,
        );
        let started = self.observer.as_ref().map(|_| Instant::now());
        let result = call.instrument(span.clone()).await.map_err(|error| {
            span.record("code", error.code().as_str());
            match (error.key(), key, id) {
                (None, Some(key), _) => error.with_key(key),
                (None, None, Some(id)) => error.with_id(id),
                _ => error,
            }
        });
        if let (Some(observer), Some(started)) = (&self.observer, started) {
            let outcome = match &result {
                Ok(value) => refused(value).map_or(Outcome::Done, Outcome::Refused),
                Err(error) => Outcome::Failed(error.code()),
            };
            observer.tell(&Event {
                operation,
                outcome,
                key: key.cloned(),
                id: id.cloned(),
                duration: started.elapsed(),
                attempts: None,
                raw_names: observer.raw_names,
            });
        }
        result
    }

    /// A wait for a lock is over.
    pub(crate) fn waited(
        &self,
        key: &Key,
        begun: Instant,
        attempts: u32,
        result: &Result<LockGuard>,
    ) {
        if let Some(observer) = &self.observer {
            observer.tell(&Event {
                operation: Operation::Wait,
                outcome: result
                    .as_ref()
                    .map_or_else(|error| Outcome::Failed(error.code()), |_| Outcome::Done),
                key: Some(key.clone()),
                id: result.as_ref().ok().map(|guard| guard.id().clone()),
                duration: begun.elapsed(),
                attempts: Some(attempts),
                raw_names: observer.raw_names,
            });
        }
    }
}

fn gone(done: bool, over: bool) -> Option<Reason> {
    match (done, over) {
        (true, _) => None,
        (false, true) => Some(Reason::Expired),
        (false, false) => Some(Reason::NotFound),
    }
}

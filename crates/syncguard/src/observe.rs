//! The backend as the runtime uses it: every call gets a span and an event.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    Acquired, AnyBackend, Backend, Capabilities, Key, Lease, LockId, LockRecord, Operation,
    Publication, Result, Sent, Ttl,
};
use tokio::time::Instant;
use tracing::{Instrument, debug_span, field};

use crate::event::{Event, Outcome, Reason};
use crate::runtime::current_runtime;

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

    pub(crate) async fn acquire(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        let refused = |acquired: &Acquired| {
            matches!(acquired, Acquired::Held { .. }).then_some(Reason::Locked)
        };
        let call = self.backend.acquire_marking(key, id, ttl, sent);
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

    pub(crate) async fn publish(
        &self,
        lease: &Lease,
        publication: &Publication,
        ttl: Ttl,
    ) -> Result<bool> {
        let call = self.backend.publish(lease, publication, ttl);
        let (key, id) = (Some(lease.key()), Some(lease.id()));
        self.observe(Operation::Publish, key, id, call, |done| gone(*done, false)).await
    }

    pub(crate) async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let call = self.backend.withdraw(lease);
        let (key, id) = (Some(lease.key()), Some(lease.id()));
        self.observe(Operation::Withdraw, key, id, call, |()| None).await
    }

    pub(crate) async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let call = self.backend.published(key);
        let refused = |found: &Option<Publication>| gone(found.is_some(), false);
        self.observe(Operation::Published, Some(key), None, call, refused).await
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
        // A driver may panic outside a runtime.
        let result = match current_runtime(operation) {
            Ok(_) => call.instrument(span.clone()).await,
            Err(error) => Err(error),
        };
        let result = result.map_err(|error| {
            span.record("code", error.code().as_str());
            match (error.key(), key, id) {
                (None, Some(key), _) => error.with_key(key),
                (None, None, Some(id)) => error.with_id(id),
                _ => error,
            }
        });
        if let Some(started) = started {
            let outcome = match &result {
                Ok(value) => refused(value).map_or(Outcome::Done, Outcome::Refused),
                Err(error) => Outcome::Failed(error.code()),
            };
            self.tell(operation, outcome, (key, id), started.elapsed(), None);
        }
        result
    }

    /// Reports what is no single operation on the backend: a wait, or a loss.
    pub(crate) fn report(
        &self,
        operation: Operation,
        outcome: Outcome,
        key: &Key,
        id: Option<&LockId>,
        started: Instant,
        attempts: Option<u32>,
    ) {
        if self.observer.is_some() {
            self.tell(operation, outcome, (Some(key), id), started.elapsed(), attempts);
        }
    }

    fn tell(
        &self,
        operation: Operation,
        outcome: Outcome,
        (key, id): (Option<&Key>, Option<&LockId>),
        duration: Duration,
        attempts: Option<u32>,
    ) {
        if let Some(observer) = &self.observer {
            let (key, id, raw_names) = (key.cloned(), id.cloned(), observer.raw_names);
            observer.tell(&Event { operation, outcome, key, id, duration, attempts, raw_names });
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

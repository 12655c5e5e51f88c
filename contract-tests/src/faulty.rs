//! A backend that works, with trouble on the way to it: requests and replies that are lost, come late
//! or do not come at all.

use std::fmt;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex};

use syncguard_core::{
    Acquired, AnyBackend, Backend, Capabilities, Error, ErrorCode, Key, Lease, LockId, LockRecord,
    Operation, Result, Ttl,
};
use tokio::sync::watch;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// It fails, and nothing was done.
    Refuse(ErrorCode),
    /// It fails, although it was carried out.
    LoseReply(ErrorCode),
    /// It is carried out once the [`Faulty`] is opened.
    HoldRequest,
    /// It is carried out, and answered once the [`Faulty`] is opened.
    HoldReply,
}

/// A backend with trouble on the way to it. It gives no hints. Clones are the same.
#[derive(Clone)]
pub(crate) struct Faulty(Arc<Inner>);

struct Inner {
    backend: AnyBackend,
    /// By operation, and by how many calls of that operation there were before.
    trouble: Box<dyn Fn(Operation, usize) -> Trouble + Send + Sync>,
    calls: Mutex<Vec<Operation>>,
    open: watch::Sender<bool>,
}

impl Faulty {
    pub(crate) fn new(
        backend: AnyBackend,
        trouble: impl Fn(Operation, usize) -> Trouble + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            backend,
            trouble: Box::new(trouble),
            calls: Mutex::default(),
            open: watch::Sender::new(false),
        }))
    }

    /// Lets go of all requests and replies that are held.
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// The calls so far, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Operation> {
        self.0.calls.lock().unwrap().clone()
    }

    /// How many calls of this operation there were.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.calls().iter().filter(|call| **call == operation).count()
    }

    async fn call<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = self.count(operation);
        self.0.calls.lock().unwrap().push(operation);
        let opened = async || {
            // The sender lives in `self`, so the channel cannot be closed.
            let _ = self.0.open.subscribe().wait_for(|open| *open).await;
        };
        let failed = |code| Error::new(code, operation).with_source("made to fail");
        match (self.0.trouble)(operation, before) {
            Trouble::None => call.await,
            Trouble::Refuse(code) => Err(failed(code)),
            Trouble::LoseReply(code) => {
                call.await?;
                Err(failed(code))
            }
            Trouble::HoldRequest => {
                opened().await;
                call.await
            }
            Trouble::HoldReply => {
                let reply = call.await;
                opened().await;
                reply
            }
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.0.backend).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Faulty {
    fn capabilities(&self) -> Capabilities {
        let whole = self.0.backend.capabilities();
        let plain = Capabilities::new(whole.clock());
        if whole.ends_at_ttl() { plain.with_end_at_ttl() } else { plain }
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let call = self.0.backend.acquire(key, id, ttl);
        self.call(Operation::Acquire, call).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.0.backend.extend(lease, ttl);
        self.call(Operation::Extend, call).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let call = self.0.backend.release(lease);
        self.call(Operation::Release, call).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.0.backend.extend_by_id(id, ttl);
        self.call(Operation::Extend, call).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let call = self.0.backend.release_by_id(id);
        self.call(Operation::Release, call).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        self.call(Operation::Get, self.0.backend.get(key)).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.call(Operation::Find, self.0.backend.find(id)).await
    }

    async fn hand_over(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.0.backend.hand_over(lease, id, ttl);
        self.call(Operation::HandOver, call).await
    }

    fn maybe_free(&self, _key: &Key) -> impl Future<Output = ()> + Send + 'static {
        pending()
    }
}

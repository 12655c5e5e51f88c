//! A backend that works, with trouble on the way to it: requests and replies that are lost, come late
//! or do not come at all.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

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

/// What becomes of the notifications of a backend that pushes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notifications {
    Passed,
    /// There are none, and that is said.
    Off,
    /// Every second one is lost on its way from a backend that goes on telling.
    Lossy,
}

/// A backend with trouble on the way to it. What it can do beyond the contract is passed on unless
/// it is switched off. Clones share everything but those switches.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<Inner>,
    notifications: Notifications,
    supports_handoff: bool,
}

struct Inner {
    backend: AnyBackend,
    /// By operation, and by how many calls of that operation there were before.
    trouble: Box<dyn Fn(Operation, usize) -> Trouble + Send + Sync>,
    calls: Mutex<Vec<Operation>>,
    /// The id of every attempt.
    attempts: Mutex<Vec<LockId>>,
    held: AtomicUsize,
    notifications: AtomicUsize,
    /// Shared with every interest that has not ended.
    interest: Arc<()>,
    open: watch::Sender<bool>,
}

impl Faulty {
    pub(crate) fn new(
        backend: AnyBackend,
        trouble: impl Fn(Operation, usize) -> Trouble + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner {
            backend,
            trouble: Box::new(trouble),
            calls: Mutex::default(),
            attempts: Mutex::default(),
            held: AtomicUsize::default(),
            notifications: AtomicUsize::default(),
            interest: Arc::default(),
            open: watch::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
            notifications: Notifications::Passed,
            supports_handoff: true,
        }
    }

    pub(crate) const fn with_notifications(mut self, notifications: Notifications) -> Self {
        self.notifications = notifications;
        self
    }

    pub(crate) const fn without_handoff(mut self) -> Self {
        self.supports_handoff = false;
        self
    }

    /// Lets go of all requests and replies that are held.
    pub(crate) fn open(&self) {
        self.inner.open.send_replace(true);
    }

    /// The calls so far, in the order in which they came.
    pub(crate) fn calls(&self) -> Vec<Operation> {
        self.inner.calls.lock().unwrap().clone()
    }

    /// How many calls of this operation there were.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.calls().iter().filter(|call| **call == operation).count()
    }

    /// How many attempts were made under each id, in the order in which the ids appeared.
    pub(crate) fn attempts_by_id(&self) -> Vec<usize> {
        let mut counts: Vec<(LockId, usize)> = Vec::new();
        for id in self.inner.attempts.lock().unwrap().iter() {
            match counts.iter_mut().find(|(known, _)| known == id) {
                Some((_, count)) => *count += 1,
                None => counts.push((id.clone(), 1)),
            }
        }
        counts.into_iter().map(|(_, count)| count).collect()
    }

    /// How many requests and replies have been held so far. Of a reply that counts, the call was
    /// carried out.
    pub(crate) fn held(&self) -> usize {
        self.inner.held.load(Ordering::SeqCst)
    }

    /// How many take an interest in notifications at this moment.
    pub(crate) fn interests(&self) -> usize {
        Arc::strong_count(&self.inner.interest) - 1
    }

    async fn call<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = self.count(operation);
        self.inner.calls.lock().unwrap().push(operation);
        let opened = async || {
            self.inner.held.fetch_add(1, Ordering::SeqCst);
            // The sender lives in `self`, so the channel cannot be closed.
            let _ = self.inner.open.subscribe().wait_for(|open| *open).await;
        };
        let failed = |code| Error::new(code, operation).with_source("made to fail");
        match (self.inner.trouble)(operation, before) {
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
        f.debug_tuple("Faulty").field(&self.inner.backend).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Faulty {
    fn capabilities(&self) -> Capabilities {
        let whole = self.inner.backend.capabilities();
        let mut left = Capabilities::new(whole.clock());
        if whole.ends_at_ttl() {
            left = left.with_end_at_ttl();
        }
        if whole.receives_notifications() && self.notifications != Notifications::Off {
            left = left.with_notifications();
        }
        if whole.supports_handoff() && self.supports_handoff {
            left = left.with_handoff();
        }
        left
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.inner.attempts.lock().unwrap().push(id.clone());
        let call = self.inner.backend.acquire(key, id, ttl);
        self.call(Operation::Acquire, call).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.inner.backend.extend(lease, ttl);
        self.call(Operation::Extend, call).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let call = self.inner.backend.release(lease);
        self.call(Operation::Release, call).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.inner.backend.extend_by_id(id, ttl);
        self.call(Operation::Extend, call).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let call = self.inner.backend.release_by_id(id);
        self.call(Operation::Release, call).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        self.call(Operation::Get, self.inner.backend.get(key)).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.call(Operation::Find, self.inner.backend.find(id)).await
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let call = self.inner.backend.handoff(lease, id, ttl);
        self.call(Operation::Handoff, call).await
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let (inner, notifications) = (self.inner.clone(), self.notifications);
        let mut notification: Pin<Box<dyn Future<Output = ()> + Send>> = match notifications {
            Notifications::Passed | Notifications::Lossy => {
                Box::pin(self.inner.backend.notified(key))
            }
            Notifications::Off => Box::pin(pending()),
        };
        let interest = inner.interest.clone();
        let mut lost = false;
        // Unlike an async block, this keeps the backend's own, once that has resolved, until it is
        // dropped itself.
        poll_fn(move |context| {
            let _lasts_as_long = &interest;
            if lost || notification.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let before = inner.notifications.fetch_add(1, Ordering::SeqCst);
            lost = notifications == Notifications::Lossy && !before.is_multiple_of(2);
            if lost { Poll::Pending } else { Poll::Ready(()) }
        })
    }
}

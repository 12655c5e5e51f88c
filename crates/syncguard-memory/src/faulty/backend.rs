//! The trait: every operation passes through [`State::call`](super::state::State::call).

use std::future::{Future, pending, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use syncguard_core::{
    Acquired, Backend, Capabilities, Error, ErrorCode, Finding, Key, Lease, LockId, LockRecord,
    Operation, Publication, Result, Sent, Ttl,
};
use tokio::time::sleep;

use super::FaultyBackend;
use super::fault::Notifications;

/// Long enough that the waiter has polled the future and gone to sleep.
const BEFORE_THE_PANIC: Duration = Duration::from_millis(10);

// Each call owns what it needs, because a request that lands late outlives its caller.
#[deny(clippy::missing_trait_methods)]
impl Backend for FaultyBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.acquire_marking(key, id, ttl, &Sent::default()).await
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        let (inner, key, owned) = (self.inner.clone(), key.clone(), id.clone());
        let call = async move { inner.acquire(&key, &owned, ttl).await };
        self.state.call_marking(Operation::Acquire, Some(id.clone()), sent, call).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let (inner, owned) = (self.inner.clone(), lease.clone());
        let call = async move { inner.extend(&owned, ttl).await };
        self.state.call(Operation::Extend, Some(lease.id().clone()), call).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let (inner, owned) = (self.inner.clone(), lease.clone());
        let call = async move { inner.release(&owned).await };
        self.state.call(Operation::Release, Some(lease.id().clone()), call).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (inner, owned) = (self.inner.clone(), id.clone());
        let call = async move { inner.extend_by_id(&owned, ttl).await };
        self.state.call(Operation::Extend, Some(id.clone()), call).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let (inner, owned) = (self.inner.clone(), id.clone());
        let call = async move { inner.release_by_id(&owned).await };
        self.state.call(Operation::Release, Some(id.clone()), call).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let (inner, key) = (self.inner.clone(), key.clone());
        self.state.call(Operation::Get, None, async move { inner.get(&key).await }).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let (inner, owned) = (self.inner.clone(), id.clone());
        let call = async move { inner.find(&owned).await };
        self.state.call(Operation::Find, Some(id.clone()), call).await
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (inner, lease, owned) = (self.inner.clone(), lease.clone(), id.clone());
        let able = self.capabilities.supports_handoff();
        let call = async move {
            if able {
                return inner.handoff(&lease, &owned, ttl).await;
            }
            let error = Error::new(ErrorCode::Internal, Operation::Handoff).with_key(lease.key());
            Err(error.with_message("handoff is switched off: check `supports_handoff` first"))
        };
        self.state.call(Operation::Handoff, Some(id.clone()), call).await
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let (state, registration) = (self.state.clone(), self.state.register());
        let receives = self.capabilities.receives_notifications();
        let notifications = state.notifications();
        let mut notification: Pin<Box<dyn Future<Output = ()> + Send>> = match notifications {
            _ if !receives => Box::pin(pending()),
            Notifications::Passed | Notifications::Lossy => Box::pin(self.inner.notified(key)),
            Notifications::Lost => Box::pin(pending()),
            Notifications::Spurious => Box::pin(ready(())),
            Notifications::Panic => Box::pin(async {
                sleep(BEFORE_THE_PANIC).await;
                panic!("a panic injected by FaultyBackend");
            }),
        };
        let mut lost = false;
        // Not an async block: that would drop its captures when it resolves. The registration, and
        // the future of the wrapped backend, live until the caller drops this future.
        poll_fn(move |context| {
            let _live = &registration;
            if lost || notification.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            lost = notifications == Notifications::Lossy && state.loses_this_one();
            if lost { Poll::Pending } else { Poll::Ready(()) }
        })
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        let (inner, owned, publication) = (self.inner.clone(), lease.clone(), publication.clone());
        let able = self.capabilities.publishes();
        let call = async move {
            if able {
                return inner.publish(&owned, &publication, ttl).await;
            }
            let error = Error::new(ErrorCode::Internal, Operation::Publish).with_key(owned.key());
            Err(error.with_message("publishing is switched off: check `publishes` first"))
        };
        self.state.call(Operation::Publish, Some(lease.id().clone()), call).await
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let (inner, owned) = (self.inner.clone(), lease.clone());
        let call = async move { inner.withdraw(&owned).await };
        self.state.call(Operation::Withdraw, Some(lease.id().clone()), call).await
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let (inner, key) = (self.inner.clone(), key.clone());
        let call = async move { inner.published(&key).await };
        self.state.call(Operation::Published, None, call).await
    }

    async fn preflight(&self) -> Vec<Finding> {
        self.inner.preflight().await
    }
}

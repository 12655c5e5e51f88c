//! One type for every backend.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{
    Acquired, Backend, Capabilities, Finding, Key, Lease, LockId, LockRecord, Publication, Result,
    Sent, Ttl,
};

/// Holds any backend behind one type, so that code needs no generic parameter for it.
///
/// Use it in structs, or to choose the backend at run time. A clone is cheap and shares the backend.
/// Each operation costs one allocation and one indirect call more than without it.
///
/// # Examples
///
/// ```
/// use syncguard_core::{AnyBackend, Backend};
///
/// #[derive(Clone, Debug)]
/// struct AppState {
///     backend: AnyBackend,
/// }
///
/// fn state(in_production: bool, redis: impl Backend, memory: impl Backend) -> AppState {
///     let backend = if in_production { AnyBackend::new(redis) } else { AnyBackend::new(memory) };
///     AppState { backend }
/// }
/// ```
#[derive(Clone)]
pub struct AnyBackend(Arc<dyn Erased>);

impl AnyBackend {
    /// Wraps a backend. An `AnyBackend` is returned as it is, without a second layer.
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        match (&backend as &dyn Any).downcast_ref::<Self>() {
            Some(erased) => erased.clone(),
            None => Self(Arc::new(backend)),
        }
    }
}

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for AnyBackend {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.0.acquire(key, id, ttl).await
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        self.0.acquire_marking(key, id, ttl, sent).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.0.extend(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.0.release(lease).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.0.extend_by_id(id, ttl).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.0.release_by_id(id).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        self.0.get(key).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.0.find(id).await
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.0.handoff(lease, id, ttl).await
    }

    // Not an `async fn`, whose body would run at the first poll: notifications count from the call.
    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        self.0.notified(key)
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        self.0.publish(lease, publication, ttl).await
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        self.0.withdraw(lease).await
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        self.0.published(key).await
    }

    async fn preflight(&self) -> Vec<Finding> {
        self.0.preflight().await
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Backend`] with boxed futures, so that it can be a trait object. It is private because two
/// visible traits with the same method names would make every call ambiguous.
trait Erased: fmt::Debug + Send + Sync {
    fn capabilities(&self) -> Capabilities;
    fn acquire<'a>(
        &'a self,
        key: &'a Key,
        id: &'a LockId,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<Acquired>>;
    fn acquire_marking<'a>(
        &'a self,
        key: &'a Key,
        id: &'a LockId,
        ttl: Ttl,
        sent: &'a Sent,
    ) -> BoxFuture<'a, Result<Acquired>>;
    fn extend<'a>(&'a self, lease: &'a Lease, ttl: Ttl) -> BoxFuture<'a, Result<Option<Lease>>>;
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool>>;
    fn extend_by_id<'a>(&'a self, id: &'a LockId, ttl: Ttl)
    -> BoxFuture<'a, Result<Option<Lease>>>;
    fn release_by_id<'a>(&'a self, id: &'a LockId) -> BoxFuture<'a, Result<bool>>;
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<LockRecord>>>;
    fn find<'a>(&'a self, id: &'a LockId) -> BoxFuture<'a, Result<Option<LockRecord>>>;
    fn handoff<'a>(
        &'a self,
        lease: &'a Lease,
        id: &'a LockId,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<Option<Lease>>>;
    fn notified(&self, key: &Key) -> BoxFuture<'static, ()>;
    fn publish<'a>(
        &'a self,
        lease: &'a Lease,
        publication: &'a Publication,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<bool>>;
    fn withdraw<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;
    fn published<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Publication>>>;
    fn preflight(&self) -> BoxFuture<'_, Vec<Finding>>;
}

impl<B: Backend> Erased for B {
    fn capabilities(&self) -> Capabilities {
        Backend::capabilities(self)
    }

    fn acquire<'a>(
        &'a self,
        key: &'a Key,
        id: &'a LockId,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(Backend::acquire(self, key, id, ttl))
    }

    fn acquire_marking<'a>(
        &'a self,
        key: &'a Key,
        id: &'a LockId,
        ttl: Ttl,
        sent: &'a Sent,
    ) -> BoxFuture<'a, Result<Acquired>> {
        Box::pin(Backend::acquire_marking(self, key, id, ttl, sent))
    }

    fn extend<'a>(&'a self, lease: &'a Lease, ttl: Ttl) -> BoxFuture<'a, Result<Option<Lease>>> {
        Box::pin(Backend::extend(self, lease, ttl))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Backend::release(self, lease))
    }

    fn extend_by_id<'a>(
        &'a self,
        id: &'a LockId,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<Option<Lease>>> {
        Box::pin(Backend::extend_by_id(self, id, ttl))
    }

    fn release_by_id<'a>(&'a self, id: &'a LockId) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Backend::release_by_id(self, id))
    }

    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<LockRecord>>> {
        Box::pin(Backend::get(self, key))
    }

    fn find<'a>(&'a self, id: &'a LockId) -> BoxFuture<'a, Result<Option<LockRecord>>> {
        Box::pin(Backend::find(self, id))
    }

    fn handoff<'a>(
        &'a self,
        lease: &'a Lease,
        id: &'a LockId,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<Option<Lease>>> {
        Box::pin(Backend::handoff(self, lease, id, ttl))
    }

    fn notified(&self, key: &Key) -> BoxFuture<'static, ()> {
        Box::pin(Backend::notified(self, key))
    }

    fn publish<'a>(
        &'a self,
        lease: &'a Lease,
        publication: &'a Publication,
        ttl: Ttl,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(Backend::publish(self, lease, publication, ttl))
    }

    fn withdraw<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(Backend::withdraw(self, lease))
    }

    fn published<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Publication>>> {
        Box::pin(Backend::published(self, key))
    }

    fn preflight(&self) -> BoxFuture<'_, Vec<Finding>> {
        Box::pin(Backend::preflight(self))
    }
}

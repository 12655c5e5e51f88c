//! A negative control: a backend that ignores the holder.

use std::future::Future;

use syncguard::{
    Acquired, AnyBackend, Backend, Capabilities, Finding, Key, Lease, LockId, LockRecord,
    Publication, Result, Sent, Ttl,
};

/// Frees a key that is held, and takes it.
#[derive(Debug)]
pub(crate) struct Greedy(pub(crate) AnyBackend);

#[deny(clippy::missing_trait_methods)]
impl Backend for Greedy {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let acquired = self.0.acquire(key, id, ttl).await?;
        if let Acquired::Granted(_) = acquired {
            return Ok(acquired);
        }
        if let Some(holder) = self.0.get(key).await? {
            self.0.release_by_id(holder.id()).await?;
        }
        self.0.acquire(key, id, ttl).await
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        sent.mark();
        self.acquire(key, id, ttl).await
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

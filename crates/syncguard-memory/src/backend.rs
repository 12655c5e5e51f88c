//! The trait on top of the store.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Finding, Key, Lease, Level, LockId, LockRecord,
    Publication, Result, Timestamp, Ttl,
};

use crate::clock::{ManualClock, Source};
use crate::store::Store;

/// Locks within one process. Clones share the locks.
///
/// The store keeps every key that was ever locked, about 200 bytes each, because a fence counter is
/// never deleted (R5). A program with an endless supply of new keys grows without limit.
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    store: Arc<Mutex<Store>>,
    clock: Source,
}

impl MemoryBackend {
    /// Creates an empty store on tokio's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::on(Source::tokio())
    }

    /// Creates an empty store on a clock that the test moves.
    #[must_use]
    pub fn with_clock(clock: &ManualClock) -> Self {
        Self::on(Source::Manual(clock.clone()))
    }

    /// Ends leases exactly at their TTL, as Redis does, instead of a second later. This applies to
    /// all clones, because they share the locks.
    #[must_use]
    pub fn with_end_at_ttl(self) -> Self {
        self.store().end_at_ttl();
        self
    }

    fn on(clock: Source) -> Self {
        Self { store: Arc::default(), clock }
    }

    /// Locks the store for one atomic step. Returns the time of that step too.
    fn step(&self) -> (MutexGuard<'_, Store>, Timestamp) {
        let store = self.store();
        (store, self.clock.now())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A step does not panic halfway, so a poisoned store is still consistent.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        let capabilities =
            Capabilities::new(Clock::Server).with_notifications().with_handoff().with_publishing();
        if self.store().ends_at_ttl() { capabilities.with_end_at_ttl() } else { capabilities }
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let (mut store, now) = self.step();
        store.acquire(key, id, ttl, now).map_err(|error| error.with_key(key))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.extend_by_id(lease.id(), ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.release_by_id(lease.id()).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (mut store, now) = self.step();
        Ok(store.extend(id, ttl, now))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let (mut store, now) = self.step();
        let freed = store.release(id, now);
        drop(store);
        Ok(freed.inspect(|freed| freed.notify_waiters()).is_some())
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let (store, now) = self.step();
        Ok(store.get(key, now).cloned())
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let (store, now) = self.step();
        Ok(store.find(id, now).cloned())
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (mut store, now) = self.step();
        store.handoff(lease.id(), id, ttl, now).map_err(|error| error.with_key(lease.key()))
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        self.store().freed(key)
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        let (mut store, now) = self.step();
        Ok(store.publish(lease.key(), publication, ttl, now))
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        self.store().withdraw(lease.key(), lease.fence());
        Ok(())
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let (store, now) = self.step();
        Ok(store.published(key, now).cloned())
    }

    async fn preflight(&self) -> Vec<Finding> {
        vec![Finding::new(
            Level::Warning,
            "one-process",
            "locks are kept in the memory of this process",
            "use a backend with a server, or other processes are granted the same keys",
        )]
    }
}

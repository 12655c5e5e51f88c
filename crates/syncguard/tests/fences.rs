//! F6: a store that lost its newest data grants a fence again. The manager refuses such a grant.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::log::Log;
use syncguard::{
    Acquired, Backend, Capabilities, ErrorCode, Finding, Key, Lease, LockId, LockManager,
    LockRecord, Publication, Result, Sent, Ttl,
};
use syncguard_memory::MemoryBackend;
use tracing::Level;

/// A master, and a replica that lagged behind and becomes the master.
#[derive(Clone, Debug, Default)]
struct Replicated {
    master: MemoryBackend,
    replica: MemoryBackend,
    failed_over: Arc<AtomicBool>,
}

impl Replicated {
    fn current(&self) -> &MemoryBackend {
        if self.failed_over.load(Ordering::Relaxed) { &self.replica } else { &self.master }
    }

    fn fail_over(&self) {
        self.failed_over.store(true, Ordering::Relaxed);
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Replicated {
    fn capabilities(&self) -> Capabilities {
        self.master.capabilities()
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.current().acquire(key, id, ttl).await
    }

    async fn acquire_marking(
        &self,
        k: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        self.current().acquire_marking(k, id, ttl, sent).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.current().extend(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.current().release(lease).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.current().extend_by_id(id, ttl).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.current().release_by_id(id).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        self.current().get(key).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.current().find(id).await
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        self.current().handoff(lease, id, ttl).await
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        self.current().notified(key)
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        self.current().publish(lease, publication, ttl).await
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        self.current().withdraw(lease).await
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        self.current().published(key).await
    }

    async fn preflight(&self) -> Vec<Finding> {
        self.current().preflight().await
    }
}

/// Grants fences up to 3, and then fails over to a replica that has granted none.
async fn failed_over() -> (Replicated, LockManager) {
    let store = Replicated::default();
    let locks = LockManager::new(store.clone());
    for _ in 0..3 {
        locks.lock("key").acquire().await.unwrap().release().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.fail_over();
    (store, locks)
}

#[tokio::test(start_paused = true)]
async fn f6_a_grant_whose_fence_went_back_is_refused_and_released() {
    let (log, _logging) = Log::of_this_thread();
    let (store, locks) = failed_over().await;
    for fence in 1..=3 {
        let error = locks.lock("key").acquire().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::FenceRegression);
        assert!(!error.is_transient());
        let told = format!("the store granted fence 00000000000000{fence} after 000000000000003");
        assert!(error.to_string().contains(&told), "{error}");
        // The grant does not block the key.
        while store.replica.get(&"key".try_into().unwrap()).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(log.at(Level::ERROR, "the store granted a fence again").len(), 3);
    // The counter has passed what was granted before, so grants are good again.
    let guard = locks.lock("key").acquire().await.unwrap();
    assert_eq!(guard.fence().get(), 4);
    assert!(locks.lock("another key").acquire().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn f6_a_lease_is_not_adopted_after_a_newer_grant_of_its_key() {
    let (store, locks) = failed_over().await;
    let key: Key = "key".try_into().unwrap();
    let ttl = Duration::from_secs(30).try_into().unwrap();
    let granted = store.replica.acquire(&key, &LockId::random().unwrap(), ttl).await.unwrap();
    let Acquired::Granted(lease) = granted else { panic!("the replica's key is free") };
    let error = locks.lock("key").adopt(&lease).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FenceRegression);
}

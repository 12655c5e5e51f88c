//! A contestant: an implementation that acquires and releases a key.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use syncguard::LockManager;
use syncguard_bench::Outcome;
use syncguard_core::{Acquired, AnyBackend, Backend, Key, LockId, Ttl};

type Boxed<T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send>>;

/// Releases the key when it is awaited.
pub(crate) type Release = Boxed<()>;

type Acquire = dyn Fn(String) -> Boxed<Release> + Send + Sync;

pub(crate) const LOCK_MANAGER: &str = "SyncGuard";

/// The TTL of every lock, with every library.
pub(crate) const TTL: Duration = Duration::from_secs(30);

/// The wait limit, if the library has one. It is longer than any run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    acquire: Arc<Acquire>,
}

impl Contestant {
    pub(crate) fn new<A, R>(
        name: &'static str,
        acquire: impl Fn(String) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = Outcome<R>> + Send + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let acquire = move |key| -> Boxed<Release> {
            let acquired = acquire(key);
            Box::pin(async move { Ok(Box::pin(acquired.await?) as Release) })
        };
        Self { name, acquire: Arc::new(acquire) }
    }

    /// Waits for the key.
    pub(crate) async fn acquire(&self, key: String) -> Outcome<Release> {
        (self.acquire)(key).await
    }

    pub(crate) async fn cycle(&self, key: String) -> Outcome {
        self.acquire(key).await?.await
    }

    pub(crate) fn lock_manager(backend: impl Backend) -> Self {
        let locks = LockManager::new(backend);
        Self::new(LOCK_MANAGER, move |key| {
            let request = locks.lock(key).ttl(TTL).wait(PATIENCE);
            async move {
                let guard = request.acquire().await?;
                Ok(async move {
                    guard.release().await?;
                    Ok(())
                })
            }
        })
    }

    /// Uses a backend without the lock manager. It does not wait.
    pub(crate) fn backend_alone(backend: impl Backend) -> Outcome<Self> {
        let backend = AnyBackend::new(backend);
        let ttl = Ttl::try_from(TTL)?;
        Ok(Self::new("SyncGuard's backend alone", move |key| {
            let backend = backend.clone();
            async move {
                let acquired = backend.acquire(&Key::new(&key)?, &LockId::random()?, ttl).await?;
                let Acquired::Granted(lease) = acquired else {
                    return Err("the key is held".into());
                };
                Ok(async move {
                    backend.release(&lease).await?;
                    Ok(())
                })
            }
        }))
    }
}

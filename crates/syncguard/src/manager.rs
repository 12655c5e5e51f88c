//! The entry point: locks on one backend.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use syncguard_core::{
    AnyBackend, Backend, Error, Finding, Key, Lease, LockId, LockRecord, Operation, Result, Ttl,
};

use crate::election::Election;
use crate::request::LockRequest;
use crate::runtime::current_runtime;
use crate::settings::Settings;
use crate::shared::Shared;

/// Locks on one backend. Cloning is cheap; clones share everything.
///
/// A service makes one, keeps it in its state, and awaits [`shutdown`](Self::shutdown) at its end.
/// Every method that talks to the backend must be called inside a tokio runtime, and returns
/// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) outside of one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
/// use syncguard::LockManager;
/// use syncguard_memory::MemoryBackend;
///
/// let locks = LockManager::new(MemoryBackend::new());
/// let guard = locks.lock("invoice:7").acquire().await?;
/// println!("holding with fence {}", guard.fence());
/// assert!(guard.release().await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LockManager {
    shared: Arc<Shared>,
    settings: Settings,
}

impl LockManager {
    pub(crate) const fn from_parts(shared: Arc<Shared>, settings: Settings) -> Self {
        Self { shared, settings }
    }

    /// Makes a request for the lock of this key. Nothing happens until one of its verbs is awaited. A
    /// bad key is reported there.
    pub fn lock<K>(&self, key: K) -> LockRequest
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        LockRequest::new(self.shared.clone(), key.try_into().map_err(Into::into), self.settings)
    }

    /// Makes a candidate for the leadership of this key. Nothing happens until one of its verbs is
    /// called. A bad key is reported there.
    ///
    /// The key is that of the lock with the same name: whoever holds that lock leads.
    pub fn election<K>(&self, key: K) -> Election
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        Election::new(self.shared.clone(), key.try_into().map_err(Into::into), self.settings)
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &AnyBackend {
        &self.shared.backend.backend
    }

    /// Reads the live lease of a key, or `None` if the key is free. The answer may be outdated by the
    /// time you read it, so it is no guard for a write.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) for a bad key, otherwise as the
    /// backend fails.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn get<K>(&self, key: K) -> Result<Option<LockRecord>>
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        let key = key.try_into().map_err(|bad| bad.into().with_operation(Operation::Get))?;
        self.shared.backend.get(&key).await
    }

    /// Reads the live lease with this id, or `None`. It is no guard for a write.
    ///
    /// # Errors
    ///
    /// As the backend fails.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.shared.backend.find(id).await
    }

    /// Reads whether anybody holds the key now. It changes nothing, and it is no guard for a write.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn is_locked<K>(&self, key: K) -> Result<bool>
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        Ok(self.get(key).await?.is_some())
    }

    /// Reads whether the lease with this id is live now. It is for diagnostics. For a write, use the
    /// fence.
    ///
    /// # Errors
    ///
    /// As the backend fails.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn owns(&self, id: &LockId) -> Result<bool> {
        Ok(self.find(id).await?.is_some())
    }

    /// Extends a lease by its id. `None` if it is not live.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) for a bad TTL, otherwise as the
    /// backend fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is extended or not.
    pub async fn extend_by_id(&self, id: &LockId, ttl: Duration) -> Result<Option<Lease>> {
        let ttl = Ttl::try_from(ttl).map_err(|invalid| {
            Error::from(invalid).with_operation(Operation::Extend).with_id(id)
        })?;
        self.shared.backend.extend_by_id(id, ttl).await
    }

    /// Releases a lease by its id. True if this call ended it.
    ///
    /// # Errors
    ///
    /// As the backend fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is released or not.
    pub async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.shared.backend.release_by_id(id).await
    }

    /// Checks how the store is set up, and returns one finding per check. The documentation of each
    /// backend lists its checks.
    ///
    /// A check that could not be made is [`Unknown`](crate::Level::Unknown), never fine. If the server
    /// does not answer, all are. [`log_preflight`](crate::LockManagerBuilder::log_preflight) logs the
    /// findings instead.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// for finding in locks.preflight().await? {
    ///     println!("{finding}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn preflight(&self) -> Result<Vec<Finding>> {
        current_runtime(Operation::Preflight)?;
        Ok(self.backend().preflight().await)
    }

    /// Returns how many requests of this manager wait for a lock now: a gauge for metrics. A first
    /// attempt that is under way counts too.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.shared.queues.waiters()
    }

    /// Returns how many terms the candidates of this manager lead now: a gauge for metrics.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.shared.terms.load(Ordering::Relaxed)
    }

    /// Finishes the releases that run in the background, and ends all waits: waiters and later
    /// requests get [`Aborted`](crate::ErrorCode::Aborted). Leaders in [`Election::lead`] finish up and
    /// step down. Guards and other terms stay valid and can be released. Await this again after they are
    /// gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// drop(locks.lock("invoice:7").acquire().await?); // released in the background
    /// locks.shutdown().await?;
    /// assert!(!locks.is_locked("invoice:7").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`NetworkTimeout`](crate::ErrorCode::NetworkTimeout) if releases or leaders are still at it after the
    /// [limit](crate::LockManagerBuilder::shutdown_limit). They go on while the runtime lives.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn shutdown(&self) -> Result<()> {
        current_runtime(Operation::Shutdown)?;
        self.shared.background.shutdown(self.shared.shutdown_limit).await
    }
}

impl fmt::Debug for LockManager {
    /// One line for a log: how many wait, and for how many keys. The backend is left out, because its
    /// own `Debug` may print more, or take a lock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManager")
            .field("waiters", &self.waiters())
            .field("keys", &self.shared.queues.keys())
            .finish_non_exhaustive()
    }
}

//! The entry point: a backend, with waiting, holding and watching on top of it.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    AnyBackend, Backend, Error, Key, Lease, LockId, LockRecord, Operation, Result, Ttl,
};

use crate::background::{Background, OnReleaseError};
use crate::line::Lines;
use crate::observe::{Event, Observed, Observer, OnEvent};
use crate::request::LockRequest;

/// Locks on one backend. Cloning is cheap; clones share everything.
///
/// A service makes one, keeps it in its state, and awaits [`shutdown`](Self::shutdown) at its end.
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
#[derive(Clone, Debug)]
pub struct LockManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) backend: Observed,
    pub(crate) background: Background,
    pub(crate) lines: Lines,
    shutdown_limit: Duration,
}

impl LockManager {
    /// Locks on `backend`, with the defaults of [`builder`](Self::builder).
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        Self::builder(backend).build()
    }

    /// Locks on `backend`, with an observer or other settings of your own.
    pub fn builder(backend: impl Backend) -> LockManagerBuilder {
        LockManagerBuilder {
            backend: AnyBackend::new(backend),
            observer: None,
            raw_names: false,
            on_release_error: None,
            shutdown_limit: Duration::from_secs(10),
        }
    }

    /// Asks for the lock of this key. Nothing happens until one of the request's verbs is awaited;
    /// a bad key is reported there.
    pub fn lock<K>(&self, key: K) -> LockRequest
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        LockRequest::new(self.inner.clone(), key.try_into().map_err(Into::into))
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &AnyBackend {
        &self.inner.backend.backend
    }

    /// The live lease of a key, or `None` when it is free. A look, no guard: by the time you read
    /// the answer it may have changed.
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
        self.inner.backend.get(&key).await
    }

    /// The live lease with this id, or `None`. A look, no guard.
    ///
    /// # Errors
    ///
    /// As the backend fails.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.inner.backend.find(id).await
    }

    /// Whether anybody holds the key now. A look, no guard: it changes nothing.
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

    /// Whether the lease with this id is live now. For diagnostics; before a write, use the fence.
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

    /// Extends a lease of which only the id is known. `None` when it is not live.
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
        self.inner.backend.extend_by_id(id, ttl).await
    }

    /// Releases a lease of which only the id is known. True if this call ended it.
    ///
    /// # Errors
    ///
    /// As the backend fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is released or not.
    pub async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.inner.backend.release_by_id(id).await
    }

    /// How many of this manager's requests wait for a lock now: a gauge for metrics.
    ///
    /// Those that wait for the same key stand in line, and only the first talks to the backend. A
    /// first attempt that is under way counts as well.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.inner.lines.waiters()
    }

    /// Finishes the releases that run in the background, and ends all waiting: waiters and later
    /// requests get [`Aborted`](crate::ErrorCode::Aborted). Guards that are still held stay valid
    /// and can be released; await this again after they are gone.
    ///
    /// # Errors
    ///
    /// [`NetworkTimeout`](crate::ErrorCode::NetworkTimeout) when releases are still under way after
    /// the [limit](LockManagerBuilder::shutdown_limit). They go on while the runtime lives.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn shutdown(&self) -> Result<()> {
        self.inner.background.shutdown(self.inner.shutdown_limit).await
    }
}

/// Settings of a [`LockManager`].
///
/// # Default
///
/// - no observer
/// - releases that fail in the background are logged as a `tracing` warning
/// - a shutdown limit of 10 s
#[must_use = "does nothing until `build` is called"]
pub struct LockManagerBuilder {
    backend: AnyBackend,
    observer: Option<Arc<OnEvent>>,
    raw_names: bool,
    on_release_error: Option<Arc<OnReleaseError>>,
    shutdown_limit: Duration,
}

impl LockManagerBuilder {
    /// Calls `on_event` after every operation on the backend and every wait, for metrics. It must not
    /// block. A panic in it is caught.
    pub fn observer(mut self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(on_event));
        self
    }

    /// Gives the observer raw keys and lock ids too, not just their fingerprints. Default: no. Take
    /// it only where events are as well protected as the database.
    pub const fn observe_raw_names(mut self) -> Self {
        self.raw_names = true;
        self
    }

    /// Calls `on_error` instead of logging a warning when a release in the background fails for
    /// good: the lease then stands until its TTL. It must not block. A panic in it is caught.
    pub fn on_release_error(mut self, on_error: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_release_error = Some(Arc::new(on_error));
        self
    }

    /// How long [`LockManager::shutdown`] waits at most. Default: 10 s. Keep it below the time that
    /// your service gets to stop.
    pub const fn shutdown_limit(mut self, limit: Duration) -> Self {
        self.shutdown_limit = limit;
        self
    }

    /// Makes the manager.
    #[must_use]
    pub fn build(self) -> LockManager {
        let Self { backend, observer, raw_names, on_release_error, shutdown_limit } = self;
        let observer = observer.map(|on_event| Observer { on_event, raw_names });
        LockManager {
            inner: Arc::new(Inner {
                backend: Observed { backend, observer },
                background: Background::new(on_release_error),
                lines: Lines::default(),
                shutdown_limit,
            }),
        }
    }
}

impl std::fmt::Debug for LockManagerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockManagerBuilder")
            .field("backend", &self.backend)
            .field("raw_names", &self.raw_names)
            .field("shutdown_limit", &self.shutdown_limit)
            .finish_non_exhaustive()
    }
}

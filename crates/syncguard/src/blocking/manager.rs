//! The entry point for programs without async.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Backend, Error, Finding, Key, Lease, LockId, LockRecord, Operation, Result};

use super::request::LockRequest;
use super::runtime::Driven;
use crate::LockManagerBuilder;

/// Locks on one backend, for programs without async. Cloning is cheap; clones share everything.
///
/// A program makes one, and calls [`shutdown`](Self::shutdown) at its end. It owns a thread, which
/// ends when the last clone, request and guard is gone.
///
/// ```
/// # fn main() -> Result<(), syncguard::Error> {
/// use std::thread;
/// use syncguard::blocking::LockManager;
/// use syncguard_memory::MemoryBackend;
///
/// let locks = LockManager::connect(async { Ok(MemoryBackend::new()) })?;
/// thread::scope(|scope| {
///     for _ in 0..2 {
///         scope.spawn(|| locks.lock("invoice:7").run(|lock| -> Result<_, syncguard::Error> {
///             println!("holding with fence {}", lock.fence());
///             Ok(())
///         }));
///     }
/// });
/// locks.shutdown()
/// # }
/// ```
#[derive(Clone)]
pub struct LockManager {
    driven: Arc<Driven>,
}

impl LockManager {
    /// Connects to a backend, and starts the thread for its background work.
    ///
    /// `connect` is the future that makes the backend. It is polled on the calling thread, inside the
    /// runtime of this manager, because drivers tie their connections to a runtime. So make a
    /// connection pool of your own in an `async` block here, for example
    /// `async { PostgresBackend::builder().build(PgPoolOptions::new().connect_lazy_with(options)) }`.
    ///
    /// # Errors
    ///
    /// - As `connect` fails.
    /// - [`Internal`](crate::ErrorCode::Internal) if the operating system starts no thread.
    /// - [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn connect<B: Backend>(connect: impl Future<Output = Result<B>>) -> Result<Self> {
        Self::connect_with(connect, |options| options)
    }

    /// Does the same as [`connect`](Self::connect), with request defaults, an observer or other
    /// settings of your own.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// use std::time::Duration;
    /// use syncguard::blocking::LockManager;
    /// use syncguard_memory::MemoryBackend;
    ///
    /// let connect = async { Ok(MemoryBackend::new()) };
    /// let locks = LockManager::connect_with(connect, |options| {
    ///     options.ttl(Duration::from_secs(10)).wait(Duration::from_secs(20)).keep_alive()
    /// })?;
    /// let guard = locks.lock("invoice:7").acquire()?;
    /// # drop(guard); Ok(()) }
    /// ```
    ///
    /// An observer and other callbacks may run on the thread for background work. A callback that
    /// blocks delays renewals.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with<B: Backend>(
        connect: impl Future<Output = Result<B>>,
        options: impl FnOnce(LockManagerBuilder) -> LockManagerBuilder,
    ) -> Result<Self> {
        Ok(Self { driven: Arc::new(Driven::connect(connect, options)?) })
    }

    /// Makes a request for the lock of this key. Nothing happens until one of its verbs is called. A
    /// bad key is reported there.
    pub fn lock<K>(&self, key: K) -> LockRequest
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        LockRequest::new(self.driven.locks().lock(key), self.driven.clone())
    }

    /// Reads the live lease of a key, or `None` if the key is free. The answer may be outdated by the
    /// time you read it, so it is no guard for a write.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) for a bad key or inside a tokio runtime,
    /// otherwise as the backend fails.
    pub fn get<K>(&self, key: K) -> Result<Option<LockRecord>>
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        self.driven.block_on(Operation::Get, self.driven.locks().get(key))
    }

    /// Reads the live lease with this id, or `None`. It is no guard for a write.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime, otherwise as the
    /// backend fails.
    pub fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        self.driven.block_on(Operation::Find, self.driven.locks().find(id))
    }

    /// Reads whether anybody holds the key now. It changes nothing, and it is no guard for a write.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn is_locked<K>(&self, key: K) -> Result<bool>
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        Ok(self.get(key)?.is_some())
    }

    /// Reads whether the lease with this id is live now. It is for diagnostics. For a write, use the
    /// fence.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub fn owns(&self, id: &LockId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    /// Extends a lease by its id, to `ttl` from now. `None` if it is not live.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) for a bad TTL or inside a tokio runtime,
    /// otherwise as the backend fails.
    pub fn extend_by_id(&self, id: &LockId, ttl: Duration) -> Result<Option<Lease>> {
        self.driven.block_on(Operation::Extend, self.driven.locks().extend_by_id(id, ttl))
    }

    /// Releases a lease by its id. True if this call ended it.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime, otherwise as the
    /// backend fails.
    pub fn release_by_id(&self, id: &LockId) -> Result<bool> {
        self.driven.block_on(Operation::Release, self.driven.locks().release_by_id(id))
    }

    /// Checks how the store is set up, and returns one finding per check.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn preflight(&self) -> Result<Vec<Finding>> {
        self.driven.block_on(Operation::Preflight, self.driven.locks().preflight())
    }

    /// Returns how many requests of this manager wait for a lock now: a gauge for metrics. A first
    /// attempt that is under way counts too.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.driven.locks().waiters()
    }

    /// Finishes the releases that run in the background, and ends all waits: waiters and later
    /// requests get [`Aborted`](crate::ErrorCode::Aborted). Guards stay valid and can be released.
    ///
    /// Call it before the program ends. A dropped manager finishes the same releases, but a program
    /// that ends does not wait for that.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// drop(locks.lock("invoice:7").acquire()?); // released in the background
    /// locks.shutdown()?;
    /// assert!(!locks.is_locked("invoice:7")?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`NetworkTimeout`](crate::ErrorCode::NetworkTimeout) if releases are still under way after the
    ///   [limit](LockManagerBuilder::shutdown_limit), by default 10 s.
    /// - [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn shutdown(&self) -> Result<()> {
        self.driven.block_on(Operation::Shutdown, self.driven.locks().shutdown())
    }
}

impl fmt::Debug for LockManager {
    /// One line for a log, as that of the async manager.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.driven.locks().fmt(f)
    }
}

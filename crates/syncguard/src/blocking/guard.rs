//! The guard of a lock that a thread holds, for programs without async.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Fence, Key, Lease, LockId, Operation, Result, Timestamp};
use tokio::time::timeout;

use super::runtime::Driven;

/// A lock that is held: the blocking form of [`LockGuard`](crate::LockGuard).
///
/// Call [`release`](Self::release) when the work is done. A dropped guard is released in the
/// background, on the thread of the manager. Dropping never blocks and never panics. If the program
/// ends first, the lease ends by its TTL, so call
/// [`LockManager::shutdown`](super::LockManager::shutdown) before that.
///
/// Nothing stops blocking work when the lease is lost. Ask [`is_lost`](Self::is_lost) between its
/// steps, and pass [`fence`](Self::fence) to the resource that the lock protects.
///
/// ```
/// # fn main() -> Result<(), syncguard::Error> {
/// # use syncguard_memory::MemoryBackend;
/// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
/// let guard = locks.lock("report:daily").keep_alive().acquire()?;
/// for page in 1..=3 {
///     if guard.is_lost() {
///         break; // another holder may already work on the report
///     }
///     println!("page {page} with fence {}", guard.fence());
/// }
/// assert!(guard.release()?);
/// # Ok(()) }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LockGuard {
    // Dropped first: the runtime must know of its release before it may end.
    inner: crate::LockGuard,
    driven: Arc<Driven>,
}

impl LockGuard {
    pub(super) const fn new(inner: crate::LockGuard, driven: Arc<Driven>) -> Self {
        Self { inner, driven }
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.inner.key()
    }

    /// Returns the id of this acquisition. Anybody who knows it can release the lock.
    #[must_use]
    pub fn id(&self) -> &LockId {
        self.inner.id()
    }

    /// Returns the fencing token of this grant: higher than that of every earlier grant of this key.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.inner.fence()
    }

    /// Returns the lease as it is now, to inspect it or to send it to another process. The guard stays
    /// responsible for it.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.inner.lease()
    }

    /// Returns when the lease expires, on the backend's clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.inner.expires_at()
    }

    /// Returns how much longer the holder may rely on the lease, on this machine's monotonic clock.
    /// Zero if it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.inner.remaining()
    }

    /// Returns whether the lease is lost: the backend said that it is gone, or its time is over.
    ///
    /// It does not ask the backend. With [`keep_alive`](super::LockRequest::keep_alive), the next
    /// renewal notices a lease that the server no longer has, within a third of the TTL.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }

    /// Waits until the lease is lost, at most `limit`. True if it is lost.
    ///
    /// It replaces the pause of a loop that supervises work elsewhere, such as a child process:
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("backup").keep_alive().acquire()?;
    /// let mut backup = Command::new("pg_dump").arg("app").spawn()?;
    /// while backup.try_wait()?.is_none() {
    ///     if guard.wait_lost(Duration::from_millis(200))? {
    ///         backup.kill()?;
    ///         backup.wait()?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn wait_lost(&self, limit: Duration) -> Result<bool> {
        let lost = async { Ok(timeout(limit, self.inner.lost()).await.is_ok()) };
        self.driven.block_on(Operation::Hold, lost)
    }

    /// Sets the time that the lease still has to `ttl` from now, rounded up to whole milliseconds. It
    /// replaces the time left and does not add to it. A keep-alive goes on with this TTL. Returns the
    /// new expiry.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("import").ttl(Duration::from_secs(10)).acquire()?;
    /// guard.extend(Duration::from_secs(60))?;
    /// assert!(guard.remaining() > Duration::from_secs(50));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`LockGuard::extend`](crate::LockGuard::extend), and
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn extend(&self, ttl: Duration) -> Result<Timestamp> {
        self.driven.block_on(Operation::Extend, self.inner.extend(ttl))
    }

    /// Ends the lease. True if this call ended it. False if it had ended before, so that others may
    /// have held the key in the meantime.
    ///
    /// # Errors
    ///
    /// - As the backend fails. The release then goes on in the background.
    /// - [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime. The lock is
    ///   released in the background there: drop the guard instead.
    pub fn release(self) -> Result<bool> {
        let Self { inner, driven } = self;
        driven.block_on(Operation::Release, inner.release())
    }

    /// Lets go of the lease without ending it. It stands until its TTL, or until its next owner
    /// [adopts](super::LockRequest::adopt) or releases it.
    #[allow(clippy::must_use_candidate, reason = "a rate limit has no use for the lease")]
    pub fn detach(self) -> Lease {
        self.inner.detach()
    }
}

impl fmt::Debug for LockGuard {
    /// One line for a log, as that of the async guard.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

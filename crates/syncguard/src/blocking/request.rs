//! A request for one lock, with verbs that block the calling thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Lease, Operation, Result};

use super::guard::LockGuard;
use super::runtime::Driven;
use crate::{Backoff, CancellationToken};

/// A request for one lock: the blocking form of [`LockRequest`](crate::LockRequest), with the same
/// settings and defaults.
///
/// Set what differs from the defaults, then call a verb: [`acquire`](Self::acquire),
/// [`try_acquire`](Self::try_acquire), [`run`](Self::run) or [`adopt`](Self::adopt). A clone is a
/// request of its own.
#[must_use = "does nothing until `acquire`, `try_acquire`, `run` or `adopt` is called"]
#[derive(Clone)]
pub struct LockRequest {
    inner: crate::LockRequest,
    driven: Arc<Driven>,
}

impl LockRequest {
    pub(super) const fn new(inner: crate::LockRequest, driven: Arc<Driven>) -> Self {
        Self { inner, driven }
    }

    /// Sets how long the lease lasts unless it is extended, rounded up to whole milliseconds.
    /// Default: 30 s. See [`LockRequest::ttl`](crate::LockRequest::ttl).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.inner = self.inner.ttl(ttl);
        self
    }

    /// Sets how long to wait for the lock at most, counted from the call of the verb. Default: 5 s. It
    /// lifts the default limit of retries. See [`LockRequest::wait`](crate::LockRequest::wait).
    pub fn wait(mut self, limit: Duration) -> Self {
        self.inner = self.inner.wait(limit);
        self
    }

    /// Sets how often to try again at most. Default: 10 times, or without limit if
    /// [`wait`](Self::wait) is set.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.inner = self.inner.max_retries(retries);
        self
    }

    /// Sets the pauses between attempts. Default: [`Backoff::default`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.inner = self.inner.backoff(backoff);
        self
    }

    /// Renews the lease at a third of its TTL for as long as the guard lives, on the thread of the
    /// manager. Default for [`run`](Self::run).
    pub fn keep_alive(mut self) -> Self {
        self.inner = self.inner.keep_alive();
        self
    }

    /// Does not renew the lease, even with [`run`](Self::run): it ends at its TTL. Default for the
    /// other verbs.
    pub fn without_keep_alive(mut self) -> Self {
        self.inner = self.inner.without_keep_alive();
        self
    }

    /// Bounds how long the lock is held, whatever renews it, counted from the request. At the end the
    /// lease is lost. Default: no bound.
    ///
    /// Set it if work that hangs must not keep the lock for ever: nothing else stops the renewals of a
    /// thread that hangs.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.inner = self.inner.max_hold(limit);
        self
    }

    /// Ends the wait with [`Aborted`](crate::ErrorCode::Aborted) when another thread cancels this
    /// token. A lock that is held already stays held. Default: none.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// use std::thread;
    /// use syncguard::{CancellationToken, ErrorCode};
    ///
    /// let _held = locks.lock("import").acquire()?;
    /// let token = CancellationToken::new();
    /// let request = locks.lock("import").cancel(token.clone());
    /// let waiter = thread::spawn(move || request.acquire());
    /// token.cancel();
    /// let outcome = waiter.join().expect("acquire does not panic");
    /// assert_eq!(outcome.unwrap_err().code(), ErrorCode::Aborted);
    /// # Ok(()) }
    /// ```
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.inner = self.inner.cancel(token);
        self
    }

    /// Blocks until the lock is acquired.
    ///
    /// Threads that wait for a key at one manager form a queue, in the order of their calls.
    ///
    /// # Errors
    ///
    /// As [`LockRequest::acquire`](crate::LockRequest::acquire), and
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn acquire(self) -> Result<LockGuard> {
        let Self { inner, driven } = self;
        let guard = driven.block_on(Operation::Acquire, inner.acquire())?;
        Ok(LockGuard::new(guard, driven))
    }

    /// Acquires the lock, and renews it unless a setting says otherwise.
    pub(super) fn acquire_for_run(self) -> Result<LockGuard> {
        let keep_alive = self.inner.settings().keep_alive.unwrap_or(true);
        let request = if keep_alive { self.keep_alive() } else { self };
        request.acquire()
    }

    /// Tries once, without waiting in the queue. `None` if somebody else holds the lock.
    ///
    /// Bind the guard to a name. `if request.try_acquire()?.is_some() { .. }` drops it before the
    /// block, and so frees the key before the work:
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// let Some(guard) = locks.lock("nightly").try_acquire()? else {
    ///     return Ok(()); // somebody else does it
    /// };
    /// // Work.
    /// guard.release()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`LockRequest::try_acquire`](crate::LockRequest::try_acquire), and
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn try_acquire(self) -> Result<Option<LockGuard>> {
        let Self { inner, driven } = self;
        let guard = driven.block_on(Operation::Acquire, inner.try_acquire())?;
        Ok(guard.map(|guard| LockGuard::new(guard, driven)))
    }

    /// Goes on with a lease that was [detached](LockGuard::detach), here or in another process:
    /// extends it to the TTL of this request and returns a guard for it. `None` if it is gone.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// let lease = locks.lock("upload:7").acquire()?.detach();
    ///
    /// // In between, the lease can be serialized and sent.
    /// let guard = locks.lock(lease.key()).keep_alive().adopt(&lease)?;
    /// assert_eq!(guard.map(|guard| guard.fence()), Some(lease.fence()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`LockRequest::adopt`](crate::LockRequest::adopt), and
    /// [`InvalidArgument`](crate::ErrorCode::InvalidArgument) inside a tokio runtime.
    pub fn adopt(self, lease: &Lease) -> Result<Option<LockGuard>> {
        let Self { inner, driven } = self;
        let guard = driven.block_on(Operation::Extend, inner.adopt(lease))?;
        Ok(guard.map(|guard| LockGuard::new(guard, driven)))
    }
}

impl fmt::Debug for LockRequest {
    /// One line for a log, as that of the async request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

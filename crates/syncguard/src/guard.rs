//! The guard of a lock: extend, release, detach, watch for its loss.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use syncguard_core::{
    Error, ErrorCode, Fence, Key, Lease, LockId, Operation, Result, Timestamp, Ttl,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::lease::HeldLease;
use crate::runtime::current_runtime;
use crate::shared::Shared;
use crate::undo::Undo;
use crate::{ending, extension, keeper, loss};

/// A lock that is held.
///
/// Call [`release`](Self::release) when the work is done. *Release on drop is not immediate*: a
/// dropped guard gives its lease to a background task, and the key is free when that task has run.
/// The task runs on the runtime in which the lock was acquired. (A current-thread runtime runs it
/// when it is driven again.) If that runtime is gone, the task runs on the current one, or on the one
/// that the manager [knows](crate::LockManagerBuilder::runtime). Dropping never blocks and never
/// panics, inside a runtime or outside one. If the release cannot be sent at all, the lease ends by
/// its TTL.
///
/// `let _ = request.acquire().await?` drops the guard at once. Write `let _guard = ..`.
///
/// A guard does not prove that the lease is still live: the process may have been paused for longer
/// than the TTL. Pass [`fence`](Self::fence) to the resource that the lock protects, and stop at
/// [`lost`](Self::lost).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
/// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
/// let guard = locks.lock("report:daily").acquire().await?;
/// println!("fence {}, {:?} left", guard.fence(), guard.remaining());
/// assert!(guard.release().await?);
/// # Ok(()) }
/// ```
#[must_use = "the lock is released when the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LockGuard {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    /// The runtime for background work.
    home: Handle,
    /// Whether dropping the guard still has to release the lease.
    armed: AtomicBool,
    /// For an earlier attempt under the same id that had no answer. If it reaches the server only
    /// after the release, it is undone.
    earlier: Option<Undo>,
}

impl LockGuard {
    pub(crate) const fn new(shared: Arc<Shared>, lease: Arc<HeldLease>, home: Handle) -> Self {
        Self { shared, lease, home, armed: AtomicBool::new(true), earlier: None }
    }

    pub(crate) fn with_earlier(mut self, unanswered: Option<Undo>) -> Self {
        self.earlier = unanswered.map(Undo::untracked);
        self
    }

    /// Starts the keeper. It must not start before the guard is in its owner's hands: an owner that is
    /// never polled would hold the key for ever.
    pub(crate) fn keep_alive(&self) {
        keeper::start(&self.shared, &self.lease, &self.home, true);
    }

    pub(crate) const fn parts(&self) -> (&Arc<Shared>, &Arc<HeldLease>, &Handle) {
        (&self.shared, &self.lease, &self.home)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.lease.granted().key()
    }

    /// The id of this acquisition. Anybody who knows it can release the lock.
    #[must_use]
    pub fn id(&self) -> &LockId {
        self.lease.granted().id()
    }

    /// The fencing token of this grant: higher than that of every earlier grant of this key.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.lease.granted().fence()
    }

    /// The lease as it is now, to inspect it or to send it to another process. The guard stays
    /// responsible for it.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease.lease()
    }

    /// When the lease expires, on the backend's clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.lease.lease().expires_at()
    }

    /// How much longer the holder may rely on the lease. Zero if it is lost.
    ///
    /// It is counted on this machine's monotonic clock from before the request was sent, so it is
    /// never longer than the server counts. If the backend removes a lease exactly at its TTL, as
    /// Redis does, it is 5 ms shorter, so that a timer that fires late is still in time. A machine
    /// that is suspended may stop that clock. Then only the fence protects.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.lease.remaining()
    }

    /// Sets the time that the lease still has to `ttl` from now, rounded up to whole milliseconds. It
    /// replaces the time left and does not add to it. A keep-alive goes on with this TTL. Returns the
    /// new expiry.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("import").ttl(Duration::from_secs(10)).acquire().await?;
    /// guard.extend(Duration::from_secs(60)).await?;
    /// assert!(guard.remaining() > Duration::from_secs(50));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Lost`] if the lease has ended. This is also signalled as a loss.
    /// - [`ErrorCode::InvalidArgument`] for a TTL that is zero or too long, or outside a tokio runtime.
    /// - Otherwise as the backend fails. The lease then still stands. It may or may not have been
    ///   extended, and [`remaining`](Self::remaining) counts on the shorter time. A shorter TTL that
    ///   was not confirmed may still take effect after a later extension. So do not extend to very
    ///   different TTLs by turns.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is extended or not, as after an error. Do not keep the
    /// future without polling it: a keep-alive waits for its end.
    pub async fn extend(&self, ttl: Duration) -> Result<Timestamp> {
        let ttl = Ttl::try_from(ttl).map_err(|invalid| {
            Error::from(invalid).with_operation(Operation::Extend).with_key(self.key())
        })?;
        // Checked before the deadline moves, because nothing is sent.
        current_runtime(Operation::Extend).map_err(|error| error.with_key(self.key()))?;
        let extended = extension::extend(&self.shared, &self.lease, ttl).await?;
        extended.map(|lease| lease.expires_at()).ok_or_else(|| {
            Error::new(ErrorCode::Lost, Operation::Extend)
                .with_key(self.key())
                .with_message("the lease has ended: stop the work and acquire the lock anew")
        })
    }

    /// Ends the lease. True if this call ended it. False if it had ended before, so that others may
    /// have held the key in the meantime.
    ///
    /// If a waiter of this process is queued for the key and the backend supports it, the lease is
    /// handed off to that waiter in the same round trip.
    ///
    /// # Errors
    ///
    /// As the backend fails. The release then goes on in the background, as if the guard had been
    /// dropped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the release goes on in the background.
    pub async fn release(self) -> Result<bool> {
        // If it fails, or if this future is dropped, the guard is dropped while it is still armed.
        self.end().await
    }

    /// As [`release`](Self::release), but it can be tried again.
    pub(crate) async fn end(&self) -> Result<bool> {
        let released = ending::release(&self.shared, &self.lease, &self.home).await?;
        self.armed.store(false, Ordering::Relaxed);
        Ok(released)
    }

    /// The lease is over, and no release of it was answered.
    pub(crate) fn give_up(&self, error: &Error) {
        self.armed.store(false, Ordering::Relaxed);
        ending::forget(&self.shared, &self.lease);
        self.shared.background.report(error);
    }

    /// Lets go of the lease without ending it. It stands until its TTL, or until its next owner
    /// extends or releases it.
    ///
    /// A renewal that is under way may still be carried out.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use std::time::Duration;
    ///
    /// // At most one report per minute and user.
    /// let request = locks.lock("report:user-7").ttl(Duration::from_secs(60));
    /// if let Some(guard) = request.try_acquire().await? {
    ///     guard.detach();
    /// }
    /// assert!(locks.is_locked("report:user-7").await?);
    /// # Ok(()) }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "a rate limit has no use for the lease")]
    pub fn detach(mut self) -> Lease {
        self.armed.store(false, Ordering::Relaxed);
        if let Some(earlier) = self.earlier.take() {
            earlier.disarm();
        }
        self.lease.end();
        ending::forget(&self.shared, &self.lease);
        self.lease.lease()
    }

    /// Whether the lease is lost: the backend said that it is gone, or its time is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Resolves when the lease is lost: as soon as the backend says that it is gone, and at the
    /// latest when [`remaining`](Self::remaining) reaches zero, whatever the network does.
    ///
    /// A future that blocks its thread keeps this from resolving in time. Move blocking work to
    /// `tokio::task::spawn_blocking` or `block_in_place`.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn lost(&self) {
        if Handle::try_current().is_ok() {
            loss::lost(&self.shared, &self.lease).await;
        } else {
            // Without a runtime there is no timer here, but the keeper has one.
            self.lost_token().cancelled().await;
        }
    }

    /// A token that is cancelled when the lease is lost, for work that runs elsewhere. A release does
    /// not cancel it, and nothing does after [`detach`](Self::detach).
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        keeper::start(&self.shared, &self.lease, &self.home, false);
        self.lease.lost_token()
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if *self.armed.get_mut() {
            ending::release_in_background(&self.shared, &self.lease, &self.home);
        }
    }
}

impl fmt::Debug for LockGuard {
    /// One line for a log: the fingerprint of the key, the fence, and the time left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", &self.key().fingerprint())
            .field("fence", &self.fence())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

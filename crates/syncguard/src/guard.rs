//! What the holder of a lock has in hand.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    Error, ErrorCode, Fence, Key, Lease, LockId, Operation, Result, Timestamp, Ttl,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::attempt::Undo;
use crate::hold::Hold;

/// A lock that is held.
///
/// Call [`release`](Self::release) when the work is done. *Release on drop is not immediate*: a
/// dropped guard hands its lease to a background task on the runtime in which it was acquired, and
/// others are granted the key only when that has run. It never blocks and never panics, inside a
/// runtime or outside one; if the release cannot be sent at all, the lease ends by its TTL.
///
/// `let _ = request.acquire().await?` drops the guard at once; write `let _guard = ..`.
///
/// A guard is no proof that the lease is still live: the process may have been paused for longer
/// than its TTL. Hand [`fence`](Self::fence) to whatever the lock protects, and stop at
/// [`lost`](Self::lost).
#[must_use = "the lock is released when the guard is dropped"]
#[clippy::has_significant_drop]
#[derive(Debug)]
pub struct LockGuard {
    hold: Arc<Hold>,
    /// Whether dropping the guard still has to release the lease.
    armed: bool,
    /// For an earlier attempt under the same id whose answer is missing: should it reach the server
    /// only after the release, it is undone.
    earlier: Option<Undo>,
}

impl LockGuard {
    pub(crate) const fn new(hold: Arc<Hold>) -> Self {
        Self { hold, armed: true, earlier: None }
    }

    pub(crate) fn with_earlier(mut self, unanswered: Option<Undo>) -> Self {
        self.earlier = unanswered.map(Undo::untracked);
        self
    }

    pub(crate) fn keep_alive(&self) {
        self.hold.keep_alive();
    }

    /// It has come to somebody who is on that runtime.
    pub(crate) fn moves_to(&self, handle: Handle) {
        self.hold.moves_to(handle);
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.hold.granted().key()
    }

    /// The id of this acquisition. Whoever knows it can release the lock.
    #[must_use]
    pub fn id(&self) -> &LockId {
        self.hold.granted().id()
    }

    /// The fencing token of this grant: higher than that of every earlier grant of this key.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.hold.granted().fence()
    }

    /// The lease as it stands now, for a look or to hand it on; the guard stays responsible for it.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.hold.lease()
    }

    /// When the lease expires, on the backend's clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.hold.expires_at()
    }

    /// How much longer the holder may rely on the lease: counted on this machine's monotonic clock
    /// from before the request was sent, so never longer than the server counts. Zero once lost.
    ///
    /// A machine or VM that is suspended may stop that clock; what protects then is the fence.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// Sets the time the lease still has to `ttl` from now: it replaces, it does not add. A
    /// keep-alive goes on with this TTL. Returns the new expiry.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Lost`] when the lease has ended; this is also signalled as a loss.
    /// - [`ErrorCode::InvalidArgument`] for a TTL that is zero, has a fraction of a millisecond, or
    ///   is too long.
    /// - Otherwise as the backend fails. The lease then still stands; it may or may not have been
    ///   extended, and [`remaining`](Self::remaining) counts on the shorter of the two. A shorter TTL
    ///   that was not confirmed may still take effect after a later extension; so do not extend by
    ///   turns to very different TTLs.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is extended or not, as after an error. Do not hold the
    /// future without polling it: a keep-alive waits for its end.
    pub async fn extend(&self, ttl: Duration) -> Result<Timestamp> {
        let ttl = Ttl::try_from(ttl).map_err(|invalid| {
            Error::from(invalid).with_operation(Operation::Extend).with_key(self.key())
        })?;
        let extended = self.hold.extend(ttl).await?;
        extended.ok_or_else(|| Error::new(ErrorCode::Lost, Operation::Extend).with_key(self.key()))
    }

    /// Ends the lease. True if this call ended it; false if it had ended before, so that others may
    /// have held the key in the meantime.
    ///
    /// Where somebody in this process waits for the key, the lease goes to the first in line in the
    /// same round trip, if the backend can do that.
    ///
    /// # Errors
    ///
    /// As the backend fails. The release then goes on in the background, as if the guard had been
    /// dropped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the release goes on in the background.
    pub async fn release(mut self) -> Result<bool> {
        // An error, or this future being dropped, drops the guard while it is still armed.
        let released = self.hold.release().await?;
        self.armed = false;
        Ok(released)
    }

    /// Lets go of the lease without ending it: it stands until its TTL, or until whoever gets it
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
        self.armed = false;
        if let Some(earlier) = self.earlier.take() {
            earlier.disarm();
        }
        self.hold.end();
        self.hold.lease()
    }

    /// Whether the lease is lost: the backend said that it is gone, or its time has passed.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Resolves when the lease is lost: as soon as the backend says that it is gone, and at the
    /// latest when [`remaining`](Self::remaining) reaches zero, whatever the network does.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// A token that is cancelled when the lease is lost, for work that runs elsewhere. It is not
    /// cancelled by a release, and no more after [`detach`](Self::detach).
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        self.hold.lost_token()
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.armed {
            self.hold.clone().release_in_background();
        }
    }
}

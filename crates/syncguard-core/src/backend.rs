//! The trait that a store implements to support locks.

use std::fmt;
use std::future::{Future, pending, ready};
use std::time::Duration;

use crate::{
    Capabilities, Error, ErrorCode, Finding, Key, Lease, LockId, LockRecord, Operation,
    Publication, Result, Sent, Ttl,
};

/// The answer to an attempt to acquire a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an attempt that did not fail has no third outcome")]
pub enum Acquired {
    /// The caller now holds the key.
    Granted(Lease),
    /// Another caller holds the key.
    Held {
        /// The time until the key can be granted if the holder does not extend its lease. `None`
        /// if the backend would need another request to find out.
        remaining: Option<Duration>,
    },
}

/// Stores locks: each method is a single attempt, without retries or timers.
///
/// # For users
///
/// You need not call this trait. The lock manager in the `syncguard` crate, which every backend
/// crate exports, waits, renews and releases through it.
///
/// # For authors of backends
///
/// - Write `async fn` in the implementation. The compiler accepts it for these signatures.
/// - Each operation is one atomic change: it happens as a whole or not at all, also if the future is
///   dropped.
/// - Decide whether a lease is live with [`is_live`](crate::is_live), on one clock, in the same
///   atomic step as the change. Use the server's clock if the server has one.
/// - Limit the time of every operation, and map every failure to the [`ErrorCode`] that says what
///   the caller can do.
/// - Do not read, decide and then write in separate steps: two callers can both read "free". Let the
///   store decide, with a script, a conditional statement or a precondition.
///
/// The crate `syncguard-memory` is a complete example. The suite in `syncguard-contract` checks an
/// implementation against the [contract](crate::contract), whose clauses these methods cite.
///
/// # For authors of wrappers
///
/// Put `#[deny(clippy::missing_trait_methods)]` on an implementation that wraps another backend.
/// Otherwise a method with a default body hides the method of the wrapped backend.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use syncguard_core::{Acquired, Backend, Key, LockId, Result, Ttl};
///
/// /// Moves a lock to a new key, and reports whether the new key was free.
/// async fn move_lock(backend: &impl Backend, old: &LockId, new: &Key) -> Result<bool> {
///     let ttl = Ttl::try_from(Duration::from_secs(30))?;
///     let Acquired::Granted(_lease) = backend.acquire(new, &LockId::random()?, ttl).await? else {
///         return Ok(false);
///     };
///     backend.release_by_id(old).await?;
///     Ok(true)
/// }
/// ```
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Returns what this backend can do in addition to the contract.
    fn capabilities(&self) -> Capabilities;

    /// Tries once to acquire `key` for `ttl` with the lock id `id`.
    ///
    /// - A1: at most one lease of a key is live, whatever the interleaving.
    /// - A2: a key that is free or whose lease is dead is granted. For a live lease the answer is
    ///   [`Acquired::Held`].
    /// - A3: the fence is higher than all earlier fences of the key, across releases, expiry and
    ///   restarts.
    /// - A4: if `id` already holds the key, the same lease is returned, with the same fence and a
    ///   renewed TTL.
    /// - A6: a fence above [`Fence::MAX_GRANTED`](crate::Fence::MAX_GRANTED) is refused before
    ///   anything is written.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. If the error leaves open whether the store granted the
    /// key, the caller repeats the call with the same id or calls
    /// [`release_by_id`](Self::release_by_id).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the store may still grant the key, and the lease then lasts for its
    /// TTL. For this reason the lock manager polls the future to its end in the background, even if
    /// its own caller has gone.
    fn acquire(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Acquired>> + Send;

    /// Acquires like [`acquire`](Self::acquire), and marks `sent` when the request leaves the process.
    ///
    /// The lock manager calls this method. While `sent` is unmarked, it drops the request together
    /// with its caller, and it has nothing to undo if the request fails. So a backend that waits for a
    /// connection implements this method, and requests whose callers have gone do not pile up while
    /// the server is away. The default body marks at once.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire). An error without the mark says that nothing was granted.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while `sent` is unmarked, nothing was sent. Otherwise as
    /// [`acquire`](Self::acquire).
    fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> impl Future<Output = Result<Acquired>> + Send {
        sent.mark();
        self.acquire(key, id, ttl)
    }

    /// Sets the expiry of a live lease to now plus `ttl`, and returns the extended lease.
    ///
    /// Returns `None` if the lease is dead, unknown or replaced.
    ///
    /// - R1: the same atomic step checks the id and makes the change.
    /// - R3: the new expiry replaces the old one, so the lease may become shorter. The fence stays
    ///   the same. A dead lease is not revived.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The lease may have been extended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is either extended or unchanged.
    fn extend(&self, lease: &Lease, ttl: Ttl)
    -> impl Future<Output = Result<Option<Lease>>> + Send;

    /// Ends a lease, and returns whether it was live.
    ///
    /// - R1: the same atomic step checks the id and ends the lease.
    /// - R2: the answer is true exactly once per lease, however many callers race. It is false if
    ///   the lease is dead, unknown or replaced.
    /// - R5: the fence counter stays.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The lease may have been released.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is either released or unchanged.
    fn release(&self, lease: &Lease) -> impl Future<Output = Result<bool>> + Send;

    /// Extends a lease like [`extend`](Self::extend), for a caller that has only the id (R4).
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The lease may have been extended.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is either extended or unchanged.
    fn extend_by_id(
        &self,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Lease>>> + Send;

    /// Releases a lease like [`release`](Self::release), for a caller that has only the id (R4).
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The lease may have been released.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease is either released or unchanged.
    fn release_by_id(&self, id: &LockId) -> impl Future<Output = Result<bool>> + Send;

    /// Returns the record of the live lease of a key, if there is one (L1).
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, and [`ErrorCode::Internal`] if the stored data cannot be
    /// read (E2).
    ///
    /// # Cancel safety
    ///
    /// The method only reads, so the future may be dropped at any time.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<LockRecord>>> + Send;

    /// Returns the record of the live lease with this id, if there is one.
    ///
    /// The implementation compares `id` with the id in the record (L1), because an index by id can
    /// outlive the lease.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, and [`ErrorCode::Internal`] if the stored data cannot be
    /// read (E2).
    ///
    /// # Cancel safety
    ///
    /// The method only reads, so the future may be dropped at any time.
    fn find(&self, id: &LockId) -> impl Future<Output = Result<Option<LockRecord>>> + Send;

    /// Ends a live lease and grants its key to `id` for `ttl`, in one atomic step.
    ///
    /// Returns the new lease, or `None` if the old one is dead, unknown or replaced. With `None`,
    /// nothing is granted and nothing changes (G2).
    ///
    /// The lock manager calls this method only if
    /// [`Capabilities::supports_handoff`](crate::Capabilities::supports_handoff) returns true.
    ///
    /// - R1, R2 and R5 hold for the old lease, as in [`release`](Self::release).
    /// - A3, A5 and A6 hold for the new lease, as in [`acquire`](Self::acquire): it has the id `id`
    ///   and a higher fence (G1).
    /// - If the backend repeats the step by itself, after a lost reply for instance, it may find that
    ///   `id` already holds the key. It then returns that lease, not `None`.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The handoff may have been carried out. The default body
    /// returns [`ErrorCode::Internal`], for backends that do not support handoff.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the store may still carry out the handoff, and the new lease then
    /// lasts for its TTL.
    fn handoff(
        &self,
        lease: &Lease,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Lease>>> + Send {
        let _ = (id, ttl);
        let error = Error::new(ErrorCode::Internal, Operation::Handoff).with_key(lease.key());
        ready(Err(error.with_message(
            "this backend does not support handoff: check its capabilities before the call",
        )))
    }

    /// Waits for a notification that `key` may be free, so that another attempt is worthwhile.
    ///
    /// Like tokio's `Notify::notified`, the future receives notifications from the moment this method
    /// is *called*, not from its first poll. A waiter calls this method, makes an attempt, and then
    /// awaits the future. A release during the attempt is therefore not missed (W9).
    ///
    /// A notification is a hint. The future may complete although the key is not free, for instance
    /// once after a subscription was made or renewed. It may also never complete: the default body
    /// does not, for backends without notifications. Waiters therefore also retry by timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait for notifications.
    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let _ = key;
        pending()
    }

    /// Stores what the holder of `lease` publishes for its key, for `ttl`.
    ///
    /// Returns false, and changes nothing, if a publication of this key with a higher fence is stored.
    /// Otherwise the publication replaces what is stored, also data that cannot be read. The lock
    /// record stays as it is, and the method does not check whether the lease is live: readers do.
    ///
    /// The lock manager calls this method only if
    /// [`Capabilities::publishes`](crate::Capabilities::publishes) returns true.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The publication may have been stored. The default body
    /// returns [`ErrorCode::Internal`], for backends that do not support publishing.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the store may still store the publication.
    fn publish(
        &self,
        lease: &Lease,
        publication: &Publication,
        ttl: Ttl,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (publication, ttl);
        let error = Error::new(ErrorCode::Internal, Operation::Publish).with_key(lease.key());
        ready(Err(error.with_message(
            "this backend does not support publishing: check its capabilities before the call",
        )))
    }

    /// Removes what is stored for the key of `lease`, unless its fence is above that of the lease.
    ///
    /// If nothing is stored, nothing happens. The default body does nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. The publication may have been removed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the publication is either removed or unchanged.
    fn withdraw(&self, lease: &Lease) -> impl Future<Output = Result<()>> + Send {
        let _ = lease;
        ready(Ok(()))
    }

    /// Returns what is stored for `key`, unless it has expired.
    ///
    /// An expiry counts as that of a lease does (T2). The answer says nothing about the lock: the
    /// caller compares the fence with that of the live lease. The default body finds nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails, and [`ErrorCode::Internal`] if the stored data cannot be
    /// read (E2).
    ///
    /// # Cancel safety
    ///
    /// The method only reads, so the future may be dropped at any time.
    fn published(&self, key: &Key) -> impl Future<Output = Result<Option<Publication>>> + Send {
        let _ = key;
        ready(Ok(None))
    }

    /// Checks how the store is set up, and returns one finding per check.
    ///
    /// A service calls it when it starts, and logs the findings above [`Level::Fine`]. A check that
    /// could not be made is [`Level::Unknown`], never fine. The default body checks nothing.
    ///
    /// [`Level::Fine`]: crate::Level::Fine
    /// [`Level::Unknown`]: crate::Level::Unknown
    ///
    /// # Cancel safety
    ///
    /// The method only reads, so the future may be dropped at any time.
    fn preflight(&self) -> impl Future<Output = Vec<Finding>> + Send {
        ready(Vec::new())
    }
}

//! The trait that a store implements to carry locks.

use std::fmt;
use std::future::{Future, pending, ready};
use std::time::Duration;

use crate::{
    Capabilities, Error, ErrorCode, Key, Lease, LockId, LockRecord, Operation, Result, Ttl,
};

/// What an acquisition attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "an attempt has no third outcome that is no error")]
pub enum Acquired {
    /// The key is ours.
    Granted(Lease),
    /// Somebody else holds the key.
    Held {
        /// How long until the key can be granted unless the holder extends its lease, where the
        /// backend knows it without another trip.
        remaining: Option<Duration>,
    },
}

/// A store that carries locks: single attempts, without retries or timers.
///
/// # Contract
///
/// *For users.* Take the runtime in the `syncguard` crate, or a backend crate which brings it: it
/// waits, renews and releases through this trait, and you need not call it.
///
/// *For implementers.* Write `async fn` in the implementation. Every operation is one attempt; its
/// change happens atomically or not at all, whether the future is polled to its end or dropped.
/// *Live* means what [`is_live`](crate::is_live) says at the moment of that atomic step, on one
/// clock: the server's where it has one. Bound every operation in time, and map every failure to
/// the [`ErrorCode`] that says what a caller can do about it. No method that the contract depends on
/// has a default body. The crate `syncguard-memory` is a complete example, and `contract-tests`
/// proves an implementation.
///
/// *For wrappers.* Put `#[deny(clippy::missing_trait_methods)]` on the implementation, so that a
/// method added later is not silently cut off from the wrapped backend.
///
/// This looks right and is wrong: read, decide, write. Two callers can both read "free". The
/// decision belongs inside the store: a script, a conditional statement, a precondition.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What this backend can do, for those who depend on more than the contract.
    fn capabilities(&self) -> Capabilities;

    /// Tries once to take `key` for `ttl` under the identity `id`.
    ///
    /// # Behavior
    ///
    /// - A1: at most one live lease per key, whatever the interleaving.
    /// - A2: a free or dead key is granted; a live one is [`Acquired::Held`].
    /// - A3: the fence is higher than every earlier one of this key, across releases, expiry and
    ///   restarts.
    /// - A4: when `id` itself holds the key, the same lease comes back: same fence, TTL renewed.
    /// - A6: a fence above [`Fence::MAX_GRANTED`](crate::Fence::MAX_GRANTED) is refused before
    ///   anything is written.
    ///
    /// # Errors
    ///
    /// As the store fails. After an error that leaves it open whether the store acted, the caller
    /// repeats the call with the same id, or releases by id.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may still lead to a grant. The runtime polls it to its end, in a task of its
    /// own once its caller has gone, unless the tokio runtime itself shuts down.
    fn acquire(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Acquired>> + Send;

    /// Sets the expiry of a live lease to now plus `ttl`.
    ///
    /// # Behavior
    ///
    /// - R1: only the lease with this id is touched, checked in the same atomic step.
    /// - R3: it replaces, it does not add; the fence stays; a dead lease is never revived. `None`
    ///   when the lease is dead, unknown or replaced.
    ///
    /// # Errors
    ///
    /// As the store fails.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the lease either extended or untouched.
    fn extend(&self, lease: &Lease, ttl: Ttl)
    -> impl Future<Output = Result<Option<Lease>>> + Send;

    /// Ends a live lease.
    ///
    /// # Behavior
    ///
    /// - R1: only the lease with this id is touched, checked in the same atomic step.
    /// - R2: true exactly once per lease, however many callers race; false when it is dead, unknown
    ///   or replaced.
    /// - R5: the fence counter stays.
    ///
    /// # Errors
    ///
    /// As the store fails.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the lease either released or untouched.
    fn release(&self, lease: &Lease) -> impl Future<Output = Result<bool>> + Send;

    /// [`extend`](Self::extend) for a caller that has only the id (R4).
    ///
    /// # Errors
    ///
    /// As the store fails.
    ///
    /// # Cancel safety
    ///
    /// As [`extend`](Self::extend).
    fn extend_by_id(
        &self,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Lease>>> + Send;

    /// [`release`](Self::release) for a caller that has only the id (R4).
    ///
    /// # Errors
    ///
    /// As the store fails.
    ///
    /// # Cancel safety
    ///
    /// As [`release`](Self::release).
    fn release_by_id(&self, id: &LockId) -> impl Future<Output = Result<bool>> + Send;

    /// The live lease of a key, if there is one (L1).
    ///
    /// # Errors
    ///
    /// As the store fails; [`ErrorCode::Internal`] when what is stored cannot be read (E2).
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<LockRecord>>> + Send;

    /// The live lease with this id, if there is one. The record's id is compared again (L1).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    fn find(&self, id: &LockId) -> impl Future<Output = Result<Option<LockRecord>>> + Send;

    /// Ends a live lease and grants its key to `id` for `ttl`, in one atomic step: nobody else can
    /// come in between. The runtime calls it where
    /// [`Capabilities::supports_handoff`](crate::Capabilities::supports_handoff) says so.
    ///
    /// # Behavior
    ///
    /// - R1, R2, R5 hold for the old lease as in [`release`](Self::release), A3 to A6 for the new one
    ///   as in [`acquire`](Self::acquire): it has the id asked for and a higher fence.
    /// - `None` when the old lease is dead, unknown or replaced: then nothing is granted, and nothing
    ///   has changed. A backend that repeats the step by itself must not take its own first success
    ///   for that: it answers with the lease by which `id` holds the key.
    ///
    /// # Errors
    ///
    /// As the store fails, and [`ErrorCode::Internal`] from the default body, which is for backends
    /// that cannot do it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may still lead to a grant, as in [`acquire`](Self::acquire).
    fn handoff(
        &self,
        lease: &Lease,
        id: &LockId,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Lease>>> + Send {
        let _ = (id, ttl);
        let error = Error::new(ErrorCode::Internal, Operation::Handoff).with_key(lease.key());
        ready(Err(error.with_message("this backend cannot hand a lease over")))
    }

    /// Resolves when `key` may have become free since this method was *called*: a notification that it is
    /// worth trying again.
    ///
    /// Notified counts from the call, not from the first poll, so that a waiter which calls this,
    /// tries, and then awaits the future misses nothing. It may resolve for no reason, for instance
    /// once when a subscription is in place or was renewed, and a backend that knows nothing leaves
    /// it pending, as the default body does: waiters also try again by themselves.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the interest.
    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let _ = key;
        pending()
    }
}

//! A backend that fails on request, for the tests of code that uses locks.

mod backend;
mod fault;
mod state;

use std::fmt;
use std::sync::Arc;

use syncguard_core::{AnyBackend, Backend, Capabilities, Error, Key, LockId, Operation, Result};

pub use self::fault::{Call, Fault, Notifications};
use self::state::State;

/// Wraps a backend and injects faults on request: for tests of code that uses locks.
///
/// Without a fault, a call goes to the wrapped backend. Choose faults with [`next`](Self::next) for
/// single calls, or with [`on_call`](Self::on_call) for a rule that lasts. Clones share the faults
/// and the record of calls.
///
/// The capabilities are those of the wrapped backend, less what
/// [`without_notifications`](Self::without_notifications) and its siblings take away. These change
/// only the value that they return, so that two clones can stand for two processes that differ.
///
/// # Examples
///
/// A test of how code reacts to a lost lease:
///
/// ```
/// use std::time::Duration;
/// use syncguard_memory::{ErrorCode, FaultyBackend, LockManager, MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), syncguard_memory::Error> {
/// let backend = FaultyBackend::new(MemoryBackend::new());
/// let locks = LockManager::new(backend.clone());
///
/// let guard = locks.lock("report").ttl(Duration::from_secs(9)).keep_alive().acquire().await?;
/// assert!(backend.lose_lease("report").await?);
///
/// guard.lost().await; // the next renewal notices it
/// assert_eq!(guard.extend(Duration::from_secs(9)).await.unwrap_err().code(), ErrorCode::Lost);
/// # Ok(()) }
/// ```
///
/// An acquire whose reply is lost, and a server that is down for a while:
///
/// ```
/// use syncguard_memory::{ErrorCode, Fault, FaultyBackend, LockManager, MemoryBackend, Operation};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), syncguard_memory::Error> {
/// let backend = FaultyBackend::new(MemoryBackend::new());
/// let locks = LockManager::new(backend.clone());
///
/// backend.next(Operation::Acquire, Fault::LoseReply(ErrorCode::NetworkTimeout));
/// let guard = locks.lock("report").acquire().await?; // the second attempt finds the grant
/// assert_eq!((guard.fence().get(), backend.count(Operation::Acquire)), (1, 2));
///
/// backend.on_call(|_, _| Fault::Fail(ErrorCode::ServiceUnavailable));
/// assert!(locks.get("report").await.is_err());
/// backend.on_call(|_, _| Fault::None);
/// assert!(guard.release().await?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FaultyBackend {
    inner: AnyBackend,
    capabilities: Capabilities,
    state: Arc<State>,
}

impl FaultyBackend {
    /// Wraps a backend. There are no faults yet.
    #[must_use]
    pub fn new(inner: impl Backend) -> Self {
        let inner = AnyBackend::new(inner);
        Self { capabilities: inner.capabilities(), inner, state: Arc::default() }
    }

    /// Neither sends nor receives notifications.
    #[must_use]
    pub fn without_notifications(mut self) -> Self {
        let whole = self.capabilities;
        self.capabilities = rebuilt(whole, whole.supports_handoff(), whole.publishes());
        self
    }

    /// Sends notifications to other processes, but receives none.
    #[must_use]
    pub fn with_sent_notifications_only(mut self) -> Self {
        self.capabilities = self.capabilities.with_sent_notifications_only();
        self
    }

    /// Cannot hand off a lease.
    #[must_use]
    pub fn without_handoff(mut self) -> Self {
        let whole = self.capabilities;
        self.capabilities = notifying_as(whole, rebuilt(whole, false, whole.publishes()));
        self
    }

    /// Does not store what a leader publishes.
    #[must_use]
    pub fn without_publishing(mut self) -> Self {
        let whole = self.capabilities;
        self.capabilities = notifying_as(whole, rebuilt(whole, whole.supports_handoff(), false));
        self
    }

    /// Injects a fault into the next call of this operation that has none yet. Call it several times
    /// for several calls in a row; [`Fault::None`] lets one of them through.
    pub fn next(&self, operation: Operation, fault: Fault) {
        self.next_n(operation, 1, fault);
    }

    /// Injects the same fault into the next `n` calls of this operation that have none yet.
    pub fn next_n(&self, operation: Operation, n: usize, fault: Fault) {
        self.state.queue_faults(operation, n, fault);
    }

    /// Chooses the fault of every call for which [`next`](Self::next) has none. It replaces the rule
    /// that was there before.
    ///
    /// `rule` gets the operation and how many calls of it came earlier.
    pub fn on_call(&self, rule: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static) {
        self.state.set_rule(rule);
    }

    /// Chooses what happens to notifications. It applies to waiters that register from now on.
    pub fn set_notifications(&self, notifications: Notifications) {
        self.state.set_notifications(notifications);
    }

    /// Lets all held requests and replies go on, and holds none from now on.
    pub fn open(&self) {
        self.state.open();
    }

    /// Ends the lease of a key now, as if the server had lost it: the holder is not asked. Returns
    /// whether there was a live lease.
    ///
    /// It passes by the faults and is not recorded as a call. The wrapped backend releases the
    /// lease, so a waiter may be notified.
    ///
    /// # Errors
    ///
    /// As the wrapped backend fails, and `InvalidArgument` for an invalid key.
    pub async fn lose_lease<K>(&self, key: K) -> Result<bool>
    where
        K: TryInto<Key, Error: Into<Error>>,
    {
        let key = key.try_into().map_err(|bad| bad.into().with_operation(Operation::Release))?;
        match self.inner.get(&key).await? {
            Some(record) => self.inner.release_by_id(record.id()).await,
            None => Ok(false),
        }
    }

    /// Does the same as [`lose_lease`](Self::lose_lease) for a lease that the caller knows by its
    /// lock id.
    ///
    /// # Errors
    ///
    /// As the wrapped backend fails.
    pub async fn lose_lease_by_id(&self, id: &LockId) -> Result<bool> {
        self.inner.release_by_id(id).await
    }

    /// The calls of this operation so far, in order.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> Vec<Call> {
        let mut calls = self.history();
        calls.retain(|call| call.operation() == operation);
        calls
    }

    /// The number of calls of this operation so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.state.count(operation)
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn history(&self) -> Vec<Call> {
        self.state.history()
    }

    /// The number of requests and replies that are held at this moment.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.held()
    }

    /// The number of futures of [`notified`](Backend::notified) that exist at this moment.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.state.registrations()
    }

    /// The number of calls of [`notified`](Backend::notified) so far.
    #[must_use]
    pub fn registrations_so_far(&self) -> usize {
        self.state.registrations_so_far()
    }

    /// The wrapped backend: to look at it without faults and without a recorded call.
    #[must_use]
    pub const fn inner(&self) -> &AnyBackend {
        &self.inner
    }
}

/// The same clock and the same end of leases, without notifications.
fn rebuilt(whole: Capabilities, supports_handoff: bool, publishes: bool) -> Capabilities {
    let mut capabilities = Capabilities::new(whole.clock());
    if whole.ends_at_ttl() {
        capabilities = capabilities.with_end_at_ttl();
    }
    if supports_handoff {
        capabilities = capabilities.with_handoff();
    }
    if publishes {
        capabilities = capabilities.with_publishing();
    }
    capabilities
}

/// The capabilities with the notifications of `whole`.
fn notifying_as(whole: Capabilities, capabilities: Capabilities) -> Capabilities {
    if whole.receives_notifications() {
        capabilities.with_notifications()
    } else if whole.sends_notifications() {
        capabilities.with_sent_notifications_only()
    } else {
        capabilities
    }
}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultyBackend").field(&self.inner).finish()
    }
}

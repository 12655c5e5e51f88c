//! A request for one lock, and the verbs that ask.

mod setters;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use syncguard_core::{Error, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::LockGuard;
use crate::attempt::{self, Attempt};
use crate::limits::Limits;
use crate::queue::Terms;
use crate::runtime::current_runtime;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::wait::Wait;
use crate::wait_report::WaitReport;

/// A request for one lock. Set what differs from the defaults, then await a verb:
/// [`acquire`](Self::acquire), [`try_acquire`](Self::try_acquire), [`run`](Self::run) or
/// [`adopt`](Self::adopt).
///
/// A clone is a request of its own: keep one as a template if several tasks ask for the same lock.
///
/// # Default
///
/// As the [manager](crate::LockManagerBuilder) is set, and otherwise:
///
/// - [`ttl`](Self::ttl): 30 s
/// - [`wait`](Self::wait): at most 5 s and at most 10 retries
/// - [`backoff`](Self::backoff): 100 ms, doubling, with equal jitter
/// - [`keep_alive`](Self::keep_alive): with `run`, not with the other verbs
#[must_use = "does nothing until `acquire`, `try_acquire`, `run` or `adopt` is awaited"]
#[derive(Clone)]
pub struct LockRequest {
    shared: Arc<Shared>,
    key: Result<Key>,
    settings: Settings,
    cancel: Option<CancellationToken>,
    takes_handoff: bool,
}

impl LockRequest {
    pub(crate) const fn new(shared: Arc<Shared>, key: Result<Key>, settings: Settings) -> Self {
        Self { shared, key, settings, cancel: None, takes_handoff: true }
    }

    /// Waits for the lock.
    ///
    /// Within one manager, the waiters for a key form a queue, in the order of their first poll. Only
    /// the first waiter talks to the backend. Poll the future to its end or drop it: a future that is
    /// kept without being polled holds up those behind it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let guard = locks.lock("invoice:7").acquire().await?;
    /// // Work, and pass guard.fence() to what the lock protects.
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::AcquisitionTimeout`] if the wait limit or the retries are used up and the key
    ///   was seen to be held. The message says how long the wait was and when the lease ends.
    /// - A transient error of the backend is retried within the same limits, and then returned as
    ///   itself. If nothing answered at all, it is [`ErrorCode::NetworkTimeout`]. Any other error of
    ///   the backend is returned at once.
    /// - [`ErrorCode::Aborted`] if the token is cancelled or the manager is shut down.
    /// - [`ErrorCode::InvalidArgument`] for a bad key, TTL or wait, or outside a tokio runtime. (The
    ///   runtime must have its timer enabled. Tokio panics if it has not.)
    ///
    /// After an error no lease is left: a lease that was granted unnoticed is released in the
    /// background.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point. A lease that the server grants to it nevertheless is
    /// released in the background, or handed off to the next waiter. The time waited and the place in
    /// the queue are lost.
    pub async fn acquire(self) -> Result<LockGuard> {
        let keep_alive = self.settings.keep_alive.unwrap_or(false);
        self.wait_for_guard(keep_alive).await
    }

    pub(crate) async fn wait_for_guard(self, keep_alive: bool) -> Result<LockGuard> {
        let Checked { shared, home, key, terms, limits, settings } = self.check()?;
        let mut report = WaitReport::new(&shared.backend, &key, limits.started);
        let (backoff, retries) = (settings.backoff, settings.retries());
        let wait = Wait { shared: &shared, home: &home, key: &key, terms: &terms, limits: &limits };
        let span = report.span.clone();
        let result = {
            let mut waited = pin!(wait.run(backoff, retries, &mut report.attempts));
            // Not `instrument`, which would copy the future.
            poll_fn(|cx| span.in_scope(|| waited.as_mut().poll(cx))).await
        };
        report.outcome = Some(result.as_ref().map(|guard| guard.id().clone()).map_err(Error::code));
        drop(report);
        if keep_alive && let Ok(guard) = &result {
            guard.keep_alive();
        }
        result
    }

    /// Tries once, without waiting in the queue. `None` if somebody else holds the lock.
    ///
    /// Bind the guard to a name. `if request.try_acquire().await?.is_some() { .. }` drops it before
    /// the block, and so frees the key before the work:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let Some(guard) = locks.lock("nightly").try_acquire().await? else {
    ///     return Ok(()); // somebody else does it
    /// };
    /// // Work.
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), but any error of the backend is returned at once, and
    /// [`ErrorCode::NetworkTimeout`] if there is no answer within [`wait`](Self::wait).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(self) -> Result<Option<LockGuard>> {
        let Checked { shared, home, key, terms, limits, settings } = self.check()?;
        let attempt = pin!(attempt::acquire(&shared, &home, &key, &terms, None));
        let attempt = limits.bound(shared.background.closing(), attempt).await;
        match attempt.map_err(|stop| stop.without_answer(Operation::Acquire, &key))? {
            Attempt::Granted(guard) => {
                if settings.keep_alive == Some(true) {
                    guard.keep_alive();
                }
                Ok(Some(guard))
            }
            Attempt::Held { .. } => Ok(None),
            Attempt::Failed(error, _undone_when_dropped) => Err(error),
        }
    }

    /// Goes on with a lease that was [detached](LockGuard::detach), here or in another process:
    /// extends it to the TTL of this request and returns a guard for it. `None` if it is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let lease = locks.lock("upload:7").acquire().await?.detach();
    ///
    /// // The lease can be serialized on its way.
    /// let guard = locks.lock(lease.key()).keep_alive().adopt(&lease).await?;
    /// assert_eq!(guard.map(|guard| guard.fence()), Some(lease.fence()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::InvalidArgument`] if the lease is one of another key, and as for
    ///   [`acquire`](Self::acquire).
    /// - [`ErrorCode::NetworkTimeout`] if there is no answer within [`wait`](Self::wait).
    /// - Otherwise as the backend fails.
    ///
    /// After an error the lease still stands, extended or not, and can be adopted again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease still stands, extended or not, and can be adopted again.
    pub async fn adopt(self, lease: &Lease) -> Result<Option<LockGuard>> {
        let Checked { shared, home, key, terms, limits, settings } =
            self.check().map_err(|error| error.with_operation(Operation::Extend))?;
        if lease.key() != &key {
            return Err(Error::new(ErrorCode::InvalidArgument, Operation::Extend)
                .with_key(&key)
                .with_message("the lease is one of another key: ask for the lock of lease.key()"));
        }
        let adopted = pin!(attempt::adopt(&shared, &home, lease, &terms));
        let adopted = limits.bound(shared.background.closing(), adopted).await;
        let guard = adopted.map_err(|stop| stop.without_answer(Operation::Extend, &key))??;
        if settings.keep_alive == Some(true)
            && let Some(guard) = &guard
        {
            guard.keep_alive();
        }
        Ok(guard)
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Checks the request, and starts its time.
    fn check(self) -> Result<Checked> {
        let Self { shared, key, settings, cancel, takes_handoff } = self;
        let key = key?;
        let named = |error: Error| error.with_key(&key);
        let ttl = Ttl::try_from(settings.ttl()).map_err(|bad| named(bad.into()))?;
        let wait = settings.wait();
        if wait.is_zero() {
            let zero = Error::new(ErrorCode::InvalidArgument, Operation::Acquire);
            return Err(named(zero).with_message(
                "the wait limit must not be zero: use try_acquire for a single attempt",
            ));
        }
        if settings.max_hold.is_some_and(|limit| limit.is_zero()) {
            let zero = Error::new(ErrorCode::InvalidArgument, Operation::Acquire);
            return Err(named(zero).with_message("max_hold must not be zero"));
        }
        let home = current_runtime(Operation::Acquire).map_err(named)?;
        let id = LockId::random().map_err(named)?;
        let started = Instant::now();
        let limits = Limits { started, deadline: started + wait, cancel };
        let terms = Terms { id, ttl, max_hold: settings.max_hold, takes_handoff };
        Ok(Checked { shared, home, key, terms, limits, settings })
    }
}

/// A request that was found to be sound.
struct Checked {
    shared: Arc<Shared>,
    /// The runtime of the caller.
    home: Handle,
    key: Key,
    terms: Terms,
    limits: Limits,
    settings: Settings,
}

impl fmt::Debug for LockRequest {
    /// One line for a log: the fingerprint of the key, and the settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(Key::fingerprint).map_err(Error::code);
        f.debug_struct("LockRequest")
            .field("key", &key)
            .field("ttl", &self.settings.ttl())
            .field("wait", &self.settings.wait())
            .finish_non_exhaustive()
    }
}

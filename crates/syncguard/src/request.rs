//! What to ask for, and the verbs that ask.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, field};

use crate::attempt::{Attempt, Attempts};
use crate::manager::Inner;
use crate::wait::{Limits, Stop, Wait};
use crate::{Backoff, LockGuard};

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 10;
/// A limit this far away is none, and can be added to any point in time.
const LONGEST_WAIT: Duration = Duration::from_secs(1 << 32);

/// A request for one lock: set what differs from the defaults, then await a verb.
///
/// # Default
///
/// - [`ttl`](Self::ttl): 30 s
/// - [`wait`](Self::wait): at most 5 s and at most 10 retries
/// - [`backoff`](Self::backoff): 100 ms, doubling, with equal jitter
/// - no [`keep_alive`](Self::keep_alive)
#[must_use = "does nothing until `acquire`, `try_acquire`, `run` or `adopt` is awaited"]
#[derive(Debug)]
pub struct LockRequest {
    manager: Arc<Inner>,
    key: Result<Key>,
    ttl: Duration,
    wait: Option<Duration>,
    max_retries: Option<u32>,
    backoff: Backoff,
    keep_alive: bool,
    cancel: CancellationToken,
}

impl LockRequest {
    pub(crate) fn new(manager: Arc<Inner>, key: Result<Key>) -> Self {
        Self {
            manager,
            key,
            ttl: DEFAULT_TTL,
            wait: None,
            max_retries: None,
            backoff: Backoff::default(),
            keep_alive: false,
            cancel: CancellationToken::new(),
        }
    }

    /// How long the lease lasts unless it is extended: whole milliseconds, at least one. Default:
    /// 30 s.
    ///
    /// It is how long others are blocked when this process dies. Without
    /// [`keep_alive`](Self::keep_alive) make it a good deal longer than the work; with it, 10 to
    /// 30 s suit most: shorter costs more renewals and tolerates shorter network failures.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long to wait for the lock at most, counted from when the verb is first polled, however
    /// long the server takes to answer. Default: 5 s. It must not be zero: for a single attempt there
    /// is [`try_acquire`](Self::try_acquire).
    ///
    /// Setting it lifts the default limit of 10 retries, so that it is the one limit.
    pub const fn wait(mut self, limit: Duration) -> Self {
        self.wait = Some(limit);
        self
    }

    /// How often to try again at most. Default: 10 times, or without limit where
    /// [`wait`](Self::wait) is set. Time spent in line behind others is no attempt, and those that a
    /// release called for, or the beginning of listening for one, are no retries.
    pub const fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// How long to pause between attempts that nothing else calls for. Default:
    /// [`Backoff::default`]. In line only the first one makes attempts. Where the backend pushes notifications,
    /// this is what finds a key whose release nobody told of, so it may be long.
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Renews the lease at a third of its TTL for as long as the guard lives. Default: no.
    ///
    /// Take it for work of unknown length. A renewal that fails is no loss: it is tried again until
    /// the lease is over. Stop the work when [`LockGuard::lost`] says so; [`run`](Self::run) does
    /// that by itself.
    pub const fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// Ends the wait with [`ErrorCode::Aborted`] when this token is cancelled. It does not touch a
    /// lock that is held already. Default: none.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// Waits for the lock.
    ///
    /// Within one manager, whoever waits for the same key is served in the order in which they were
    /// first polled; only the first in line talks to the backend. Poll the future to its end or drop
    /// it: one that is neither holds up those behind it.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::AcquisitionTimeout`] when the wait limit or the retries are used up.
    /// - [`ErrorCode::Aborted`] when the token is cancelled or the manager is shut down.
    /// - [`ErrorCode::InvalidArgument`] for a bad key, TTL or wait, or outside a tokio runtime. (The
    ///   runtime must have its timer enabled; tokio panics where it has not.)
    /// - A transient failure of the backend is tried again within the same limits and then returned
    ///   as itself; any other failure at once.
    ///
    /// After an error no lease is left: one that was granted without our knowing is released in the
    /// background.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point. A lease that the server grants to it all the same is
    /// released in the background, or passed on to the next in line. What is lost is the time waited,
    /// and the place in line.
    pub async fn acquire(self) -> Result<LockGuard> {
        let Ready { manager, key, attempts, limits, backoff, retries } = self.ready()?;
        let span = debug_span!(
            "syncguard.acquire",
            key = %key.fingerprint(),
            attempts = field::Empty,
            code = field::Empty,
        );
        let mut wait =
            Wait { manager: &manager, attempts: &attempts, key: &key, limits: &limits, made: 0 };
        let result = wait.run(backoff, retries).instrument(span.clone()).await;
        manager.backend.waited(&key, limits.begun, wait.made, &result);
        span.record("attempts", wait.made);
        if let Err(error) = &result {
            span.record("code", error.code().as_str());
        }
        result
    }

    /// Tries once, past all who wait. `None` when somebody else holds the lock.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), but every failure of the backend is returned at once, and
    /// [`ErrorCode::NetworkTimeout`] when there is no answer within [`wait`](Self::wait).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(self) -> Result<Option<LockGuard>> {
        let Ready { key, attempts, limits, .. } = self.ready()?;
        let id = LockId::random().map_err(|error| error.with_key(&key))?;
        match once(&limits, &key, Operation::Acquire, attempts.acquire(&key, &id)).await? {
            Attempt::Granted(guard) => Ok(Some(guard)),
            Attempt::Held { .. } => Ok(None),
            Attempt::Failed(error, _undone_when_dropped) => Err(error),
        }
    }

    /// Goes on with a lease that was [detached](LockGuard::detach), here or in another process:
    /// extends it to the TTL of this request and returns a guard for it. `None` when it is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let lease = locks.lock("upload:7").acquire().await?.detach();
    ///
    /// // The lease can be serialised on its way.
    /// let guard = locks.lock(lease.key()).keep_alive().adopt(&lease).await?;
    /// assert_eq!(guard.map(|guard| guard.fence()), Some(lease.fence()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::InvalidArgument`] when the lease is one of another key, and as for
    ///   [`acquire`](Self::acquire).
    /// - [`ErrorCode::NetworkTimeout`] when there is no answer within [`wait`](Self::wait).
    /// - Otherwise as the backend fails.
    ///
    /// After an error the lease still stands, extended or not, and can be adopted again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lease still stands, extended or not, and can be adopted again.
    pub async fn adopt(self, lease: &Lease) -> Result<Option<LockGuard>> {
        let Ready { key, attempts, limits, .. } =
            self.ready().map_err(|error| error.with_operation(Operation::Extend))?;
        if lease.key() != &key {
            return Err(Error::new(ErrorCode::InvalidArgument, Operation::Extend)
                .with_key(&key)
                .with_message("the lease is one of another key"));
        }
        once(&limits, &key, Operation::Extend, attempts.adopt(lease)).await?
    }

    /// Waits for the lock, runs `work` with it, and releases it: on success, on error, on panic,
    /// and when the future is dropped. The result of `work` is returned as it is.
    ///
    /// With [`keep_alive`](Self::keep_alive), `work` is dropped at its next await point when the
    /// lease is lost. Without, it runs to its end, whether or not it outlasts the TTL.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let fence = locks.lock("nightly").keep_alive().run(async |lock| lock.fence()).await?;
    /// assert_eq!(fence.get(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - As [`acquire`](Self::acquire), before `work` has begun.
    /// - [`ErrorCode::Lost`] when `work` was stopped because the lease was lost.
    ///
    /// A release that fails is tried again in the background and does not hide the result; one that
    /// hangs delays it until the backend's time limit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `work` is dropped, and the lock is released in the background.
    pub async fn run<F, T>(self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&LockGuard) -> T,
    {
        let keep_alive = self.keep_alive;
        let guard = self.acquire().await?;
        let value = tokio::select! {
            // The loss comes first: after a pause of the process, the work must not take one more
            // step before it is noticed.
            biased;
            () = guard.lost(), if keep_alive => {
                // The guard is dropped, not awaited: the network may be what was lost.
                return Err(Error::new(ErrorCode::Lost, Operation::Run).with_key(guard.key()));
            }
            value = work(&guard) => value,
        };
        let key = guard.key().fingerprint();
        // An error is not reported here: the release goes on in the background, which reports it.
        if let Ok(false) = guard.release().await {
            tracing::warn!(%key, "the lease had ended before the work under it was done");
        }
        Ok(value)
    }

    /// Checks the request, and starts its time.
    fn ready(self) -> Result<Ready> {
        let key = self.key?;
        let ttl = Ttl::try_from(self.ttl).map_err(|bad| Error::from(bad).with_key(&key))?;
        let wait = self.wait.unwrap_or(DEFAULT_WAIT).min(LONGEST_WAIT);
        if wait.is_zero() {
            return Err(Error::new(ErrorCode::InvalidArgument, Operation::Acquire)
                .with_key(&key)
                .with_message("the wait must not be zero: for a single attempt use try_acquire"));
        }
        let begun = Instant::now();
        let limits = Limits {
            begun,
            deadline: begun + wait,
            cancel: self.cancel,
            closing: self.manager.background.closing().clone(),
        };
        let attempts = Attempts::new(self.manager.clone(), ttl, self.keep_alive)
            .map_err(|error| error.with_key(&key))?;
        let retries = match (self.max_retries, self.wait) {
            (None, None) => Some(DEFAULT_RETRIES),
            (retries, _) => retries,
        };
        Ok(Ready { manager: self.manager, key, attempts, limits, backoff: self.backoff, retries })
    }
}

/// A request that was found to be sound.
struct Ready {
    manager: Arc<Inner>,
    key: Key,
    attempts: Attempts,
    limits: Limits,
    backoff: Backoff,
    retries: Option<u32>,
}

/// What a single attempt brings within the limits.
async fn once<T>(
    limits: &Limits,
    key: &Key,
    operation: Operation,
    attempt: impl Future<Output = T>,
) -> Result<T> {
    limits.bound(attempt).await.map_err(|stop| match stop {
        Stop::Aborted => limits.aborted(key).with_operation(operation),
        Stop::TimeUp => Error::new(ErrorCode::NetworkTimeout, operation)
            .with_key(key)
            .with_message("no answer within the wait limit"),
    })
}

//! Leader election: candidates for one key, the terms that they win, and what others see of them.

mod campaign;
mod ender;
mod lead;
mod leadership;
mod observation;
mod publisher;
mod resignation;
mod setters;
mod term;
mod watchdog;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Key, Operation, Result};
use tokio_util::sync::CancellationToken;

pub use self::leadership::Leadership;
pub use self::observation::Observation;
use self::term::WeakTerm;
pub use self::term::{Term, WorkGuard};
use crate::Backoff;
use crate::runtime::current_runtime;
use crate::settings::Settings;
use crate::shared::Shared;

/// A candidate for the leadership of one key. Clones are the same candidate.
///
/// A *term* is a lease on the lock of the key, kept alive, and its number is the fence. So at most one
/// candidate leads at a time, and a lock request for the same key waits for the end of the term. A leader
/// that was paused for too long has its late writes refused wherever the [fence](Term::fence) is checked.
///
/// [`lead`](Self::lead) does all of it: it campaigns, runs the work while it leads, steps down, and
/// campaigns again. The parts by themselves are [`campaign`](Self::campaign) and [`Term`]. Everybody
/// can [`observe`](Self::observe) who leads.
///
/// There is no method `is_leader`: its answer would be outdated when it is used. [`term`](Self::term)
/// gives the term, whose fence goes with each write.
///
/// # Default
///
/// - [`ttl`](Self::ttl): as the [manager](crate::LockManagerBuilder) is set, and otherwise 15 s
/// - [`margin`](Self::margin): a third of the TTL
/// - [`backoff`](Self::backoff): as the manager is set
/// - [`pause`](Self::pause): 1 s, doubling with each term that ends within its TTL, with equal jitter
/// - no name and no value, no cancellation, and the process is not aborted
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
/// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
/// use std::time::Duration;
/// use syncguard::{CancellationToken, Result};
///
/// let stop = CancellationToken::new();
/// let election = locks.election("billing").candidate("pod-7").cancel(stop.clone());
/// election
///     .lead(async |term| -> Result<()> {
///         println!("leading with fence {}", term.fence());
///         // Work until `term.ending()`, and pass the fence to whatever is written.
///         stop.cancel();
///         term.ending().await;
///         Ok(())
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "does nothing until `lead`, `campaign` or `observe` is called"]
#[derive(Clone)]
pub struct Election {
    shared: Arc<Shared>,
    key: Result<Key>,
    settings: Settings,
    margin: Option<Duration>,
    pause: Backoff,
    cancel: CancellationToken,
    candidate: Option<String>,
    value: Option<Vec<u8>>,
    abort_at_deadline: bool,
    /// The terms of this candidate that have not ended: more than one only if work outlives its lease.
    terms: Arc<Mutex<Vec<WeakTerm>>>,
}

const DEFAULT_TTL: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

impl Election {
    pub(crate) fn new(shared: Arc<Shared>, key: Result<Key>, defaults: Settings) -> Self {
        let settings = Settings {
            ttl: defaults.ttl.or(Some(DEFAULT_TTL)),
            // A candidate waits for ever.
            wait: Some(Duration::MAX),
            max_retries: None,
            backoff: defaults.backoff,
            keep_alive: Some(true),
            max_hold: None,
        };
        Self {
            shared,
            key,
            settings,
            margin: None,
            pause: Backoff::exponential(FIRST_PAUSE),
            cancel: CancellationToken::new(),
            candidate: None,
            value: None,
            abort_at_deadline: false,
            terms: Arc::default(),
        }
    }

    /// Waits until this candidate leads, and returns its term.
    ///
    /// It is the wait of [`LockRequest::acquire`](crate::LockRequest::acquire) without a limit: it
    /// outlasts outages, and nothing is stored for a candidate, so none can be left behind. A release
    /// within the process wakes the next candidate, but is never handed off to it, so that candidates of
    /// all processes get their chance.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let term = locks.election("billing").campaign().await?;
    /// tokio::select! {
    ///     () = term.lost() => {} // somebody else may lead: stop at once
    ///     () = term.ending() => {} // finish up
    ///     () = async { /* work, with term.fence() */ } => {}
    /// }
    /// term.resign().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::Aborted`] if the token is cancelled or the manager is shut down.
    /// - [`ErrorCode::InvalidArgument`] for a bad key, TTL, margin, name or value, or outside a tokio
    ///   runtime.
    /// - An error of the backend that is not transient. A transient one is tried again.
    ///
    /// # Cancel safety
    ///
    /// As [`LockRequest::acquire`](crate::LockRequest::acquire): no lease is left.
    pub async fn campaign(&self) -> Result<Term> {
        self.campaign_for(false).await
    }

    /// Whether the token is cancelled or the manager is shut down.
    fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled() || self.shared.background.closing().is_cancelled()
    }

    /// The term of this candidate, while it leads.
    ///
    /// Before it acts, a leader asks here or keeps its [`Term`], and hands the fence to what it
    /// writes. `None` as soon as the term is over.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.live_terms().into_iter().filter(Term::is_held).max_by_key(Term::fence)
    }

    /// Watches who leads. It needs no candidate: anybody may observe.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use syncguard::Leadership;
    ///
    /// let mut leaders = locks.election("billing").observe()?;
    /// assert_eq!(leaders.next().await, Some(Leadership::Vacant));
    /// let term = locks.election("billing").campaign().await?;
    /// let Some(Leadership::Led { fence, .. }) = leaders.next().await else { panic!() };
    /// assert_eq!(fence, term.fence());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a bad key, or outside a tokio runtime.
    pub fn observe(&self) -> Result<Observation> {
        let key = self.key.clone().map_err(|error| error.with_operation(Operation::Get))?;
        current_runtime(Operation::Get).map_err(|error| error.with_key(&key))?;
        Ok(Observation::new(self.shared.clone(), key))
    }

    /// Tells a liveness probe whether this candidate is well.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Lost`] if a term is over and its work still runs: in [`lead`](Self::lead), in a
    /// thread that has a [`WorkGuard`], or because the caller still holds the lost [`Term`]. Restart
    /// the process: nothing else surely stops blocking work. See also
    /// [`abort_at_deadline`](Self::abort_at_deadline).
    pub fn health(&self) -> Result<()> {
        match self.live_terms().into_iter().find(Term::is_overdue) {
            Some(term) => {
                Err(Error::new(ErrorCode::Lost, Operation::Lead).with_key(term.key()).with_message(
                    "the term is over and its work has not ended: restart the process, and let \
                     blocking work watch Term::lost_token",
                ))
            }
            None => Ok(()),
        }
    }

    /// The terms that somebody still has. They are dropped by the caller, after the mutex is free,
    /// because the end of a term calls the observer.
    fn live_terms(&self) -> Vec<Term> {
        let mut terms = self.terms();
        terms.retain(WeakTerm::is_alive);
        terms.iter().filter_map(WeakTerm::upgrade).collect()
    }

    fn terms(&self) -> MutexGuard<'_, Vec<WeakTerm>> {
        // Nothing panics while it is locked.
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Election {
    /// One line for a log: the fingerprint of the key, and the settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(Key::fingerprint).map_err(Error::code);
        f.debug_struct("Election")
            .field("key", &key)
            .field("ttl", &self.settings.ttl())
            .field("candidate", &self.candidate)
            .finish_non_exhaustive()
    }
}

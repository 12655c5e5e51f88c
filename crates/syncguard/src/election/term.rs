//! One term of a leader.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Fence, Key, Operation, Publication, Result};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ender::Ender;
use super::publisher::Publisher;
use super::resignation::{self, Resignation};
use super::watchdog::Watchdog;
use crate::LockGuard;
use crate::event::Outcome;

/// One term of a leader: a lease that is kept alive, and whose number is the fence.
///
/// Clones are the same term. It ends by [`resign`](Self::resign), or when the last clone is dropped:
/// the lease is then released in the background. Within [`lead`](crate::Election::lead) it ends after
/// the work, even if clones remain.
#[must_use = "the term ends when it is dropped"]
#[derive(Clone)]
pub struct Term(Arc<State>);

struct State {
    /// A resignation under way keeps it too.
    guard: Arc<LockGuard>,
    conditions: Conditions,
    began: Instant,
    ender: Ender,
    /// The work has ended, except for that in other threads, and the term ends.
    stopped: AtomicBool,
    /// Work in other threads.
    work: TaskTracker,
    outcome: Arc<resignation::Outcome>,
    publisher: Publisher,
    watchdog: Mutex<Option<Watchdog>>,
}

/// What the candidate asks of each of its terms.
pub(super) struct Conditions {
    /// The term is ended by `lead`, after the work.
    pub(super) led: bool,
    pub(super) margin: Duration,
    pub(super) cancel: CancellationToken,
    /// Whether the name and the value are published when the term begins.
    pub(super) publishes: bool,
    pub(super) candidate: String,
    pub(super) value: Vec<u8>,
    pub(super) aborts: bool,
}

/// How long before its lease a term is over, if the process is aborted at the end of the lease.
const LONGEST_HEAD_START: Duration = Duration::from_millis(100);

impl Term {
    pub(super) fn begin(guard: LockGuard, conditions: Conditions) -> Result<Self> {
        let (shared, lease, home) = guard.parts();
        let watchdog = conditions.aborts.then(|| Watchdog::start(lease)).transpose()?;
        let head_start = LONGEST_HEAD_START.min(lease.ttl().as_duration() / 10);
        let head_start = if conditions.aborts { head_start } else { Duration::ZERO };
        let publication = conditions.publishes.then(|| {
            let (candidate, value) = (conditions.candidate.clone(), conditions.value.clone());
            Publication::new(guard.fence(), candidate, value)
        });
        let publisher = Publisher::start(shared, lease, home, publication.transpose()?);
        let ender = Ender::new(shared, lease, head_start);
        ender.start(home, conditions.margin, &conditions.cancel);
        Ok(Self(Arc::new(State {
            guard: Arc::new(guard),
            conditions,
            began: Instant::now(),
            ender,
            stopped: AtomicBool::new(false),
            work: TaskTracker::new(),
            outcome: Arc::default(),
            publisher,
            watchdog: Mutex::new(watchdog),
        })))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.0.guard.key()
    }

    /// The number of the term: higher than that of every earlier term and lock of this key. Hand it to
    /// whatever the leader writes to.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.0.guard.fence()
    }

    /// How much longer the leader may rely on its term if no renewal succeeds. Zero if the term is
    /// over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.ender.remaining()
    }

    /// Resolves when the leader should finish up: the last renewal is so old that only the
    /// [margin](crate::Election::margin) is left, the candidate is cancelled, the manager is shut down,
    /// or the term was resigned.
    ///
    /// It stays resolved, even if a later renewal succeeds. The lease is renewed until the work has
    /// ended.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn ending(&self) {
        self.0.ender.ending.cancelled().await;
    }

    /// Resolves when the term is over: nobody may act as its leader any more. At the latest, that is
    /// when [`remaining`](Self::remaining) reaches zero, whatever the network does.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn lost(&self) {
        self.0.ender.lost().await;
    }

    /// A token that is cancelled when the term is over, for work that runs in other tasks or threads.
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        self.0.ender.over.child_token()
    }

    /// Marks work that runs in another task or thread: the lease is not released while the guard
    /// exists. `None` if the term is over.
    ///
    /// Such work is not dropped with the term. So let it look at [`lost_token`](Self::lost_token).
    /// [`health`](crate::Election::health) and [`abort_at_deadline`](crate::Election::abort_at_deadline)
    /// wait for it too.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// let term = locks.election("billing").campaign().await?;
    /// if let Some(work) = term.guard_work() {
    ///     let lost = term.lost_token();
    ///     tokio::task::spawn_blocking(move || {
    ///         let _work = work;
    ///         while !lost.is_cancelled() {
    ///             // One step of a long computation.
    /// #           break;
    ///         }
    ///     });
    /// }
    /// term.resign().await?; // after the computation
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn guard_work(&self) -> Option<WorkGuard> {
        // Taken first, so that a resignation which comes in between waits for it.
        let guard = WorkGuard { _tracked: self.0.work.token() };
        self.is_held().then_some(guard)
    }

    /// Publishes a value of at most 4 KiB beside the name of the candidate, in place of the one before.
    /// Observers see it until the term is over.
    ///
    /// It is kept in a record of its own, which is written only if no later term has written it, and
    /// which expires with the lease. The lock record stays as it is.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::InvalidArgument`] if the value or the name is too long.
    /// - [`ErrorCode::Lost`] if the term is over.
    /// - [`ErrorCode::Aborted`] if no runtime is left to send it. Then the term ends as well.
    /// - Otherwise as the backend fails. The value, or a newer one, is then written with the next renewal.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the value is written all the same, with the next renewal at the latest.
    pub async fn publish(&self, value: impl Into<Vec<u8>>) -> Result<()> {
        let named = |error: Error| error.with_key(self.key());
        let candidate = self.0.conditions.candidate.clone();
        let publication = Publication::new(self.fence(), candidate, value);
        self.0.publisher.publish(publication.map_err(|bad| named(bad.into()))?).await
    }

    /// Steps down: ends the term so that another candidate can win at once. True if this ended the
    /// lease, false if it had ended before. All calls return the same.
    ///
    /// A request that fails is sent again until it is answered, or until the lease is over. Inside the
    /// work of [`lead`](crate::Election::lead), return instead: there the lease is released after the
    /// work has ended, so a resignation only starts [`ending`](Self::ending), and waits.
    ///
    /// # Errors
    ///
    /// The last error of the backend, if nothing was answered until the lease was over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the resignation goes on in the background, and
    /// [`LockManager::shutdown`](crate::LockManager::shutdown) waits for it.
    pub async fn resign(&self) -> Result<bool> {
        self.0.ender.ending.cancel();
        if !self.0.conditions.led {
            self.0.stop();
        }
        self.outcome().await
    }

    async fn outcome(&self) -> Result<bool> {
        let mut outcome = self.0.outcome.subscribe();
        let known = outcome.wait_for(Option::is_some).await;
        // The sender is kept by this term.
        known.ok().and_then(|known| known.clone()).unwrap_or(Ok(false))
    }

    pub(super) fn is_held(&self) -> bool {
        !self.0.stopped.load(Ordering::Relaxed) && !self.0.ender.is_over()
    }

    /// Whether the term is over and the work has not ended.
    pub(super) fn is_overdue(&self) -> bool {
        let stopped = self.0.stopped.load(Ordering::Relaxed);
        if stopped { !self.0.work.is_empty() } else { self.0.guard.is_lost() }
    }

    pub(super) fn downgrade(&self) -> WeakTerm {
        WeakTerm(Arc::downgrade(&self.0))
    }
}

impl State {
    /// The work has ended: the term ends, once.
    fn stop(&self) {
        if self.stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        let (shared, lease, _) = self.guard.parts();
        let outcome =
            if lease.is_lost() { Outcome::Failed(ErrorCode::Lost) } else { Outcome::Done };
        self.ender.end();
        let (key, id) = (self.guard.key(), self.guard.id());
        shared.backend.report(Operation::Lead, outcome, key, Some(id), self.began, None);
        Resignation {
            guard: self.guard.clone(),
            work: self.work.clone(),
            publisher: self.publisher.clone(),
            watchdog: self.watchdog.lock().unwrap_or_else(PoisonError::into_inner).take(),
            outcome: self.outcome.clone(),
        }
        .start();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Marks work of a leader in another task or thread: [`Term::guard_work`].
#[must_use = "the work counts as ended when it is dropped"]
#[derive(Debug)]
pub struct WorkGuard {
    _tracked: TaskTrackerToken,
}

/// A term whose work runs in `lead`. When this is dropped, the work has ended, and the term ends.
pub(super) struct Led {
    term: Term,
    /// Keeps shutdown waiting.
    _tracked: TaskTrackerToken,
}

impl Led {
    pub(super) const fn new(term: Term, tracked: TaskTrackerToken) -> Self {
        Self { term, _tracked: tracked }
    }

    pub(super) const fn term(&self) -> &Term {
        &self.term
    }

    /// Resolves when the work must be dropped: the term is over, or the margin to finish up is.
    pub(super) async fn must_stop(&self) {
        let State { conditions, ender, .. } = &*self.term.0;
        let wound_up = async {
            ender.ending.cancelled().await;
            sleep(conditions.margin).await;
        };
        tokio::select! {
            biased;
            () = ender.lost() => {}
            () = wound_up => {}
        }
    }

    /// Ends the term, and waits until that was answered.
    pub(super) async fn end(self) {
        self.term.0.stop();
        // What failed is reported when the guard is dropped.
        drop(self.term.outcome().await);
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.term.0.stop();
    }
}

/// A term that may have ended.
pub(super) struct WeakTerm(Weak<State>);

impl WeakTerm {
    pub(super) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(super) fn upgrade(&self) -> Option<Term> {
        self.0.upgrade().map(Term)
    }
}

impl fmt::Debug for Term {
    /// One line for a log: the fingerprint of the key, the fence, and the time left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("key", &self.key().fingerprint())
            .field("fence", &self.fence())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

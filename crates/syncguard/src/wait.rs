//! The loop that tries until the lock is ours or a limit is reached.

use std::future::pending;
use std::time::Duration;

use syncguard_core::{Backend, Error, ErrorCode, Key, LockId, Operation, Result};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Attempts, Undo};
use crate::hold::after;
use crate::manager::Inner;
use crate::{Backoff, LockGuard};

/// What ends a wait early.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) deadline: Instant,
    /// By the caller.
    pub(crate) cancel: CancellationToken,
    /// By the shutdown of the manager.
    pub(crate) closing: CancellationToken,
}

/// Which limit ended a wait.
pub(crate) enum Stop {
    Aborted,
    TimeUp,
}

impl Limits {
    /// Awaits `future` within the limits. They come first, so that a request which was cancelled
    /// beforehand sends nothing.
    pub(crate) async fn bound<T>(&self, future: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Aborted),
            () = self.closing.cancelled() => Err(Stop::Aborted),
            () = sleep_until(self.deadline) => Err(Stop::TimeUp),
            value = future => Ok(value),
        }
    }

    /// The error for a caller who was stopped while waiting for `key`.
    pub(crate) fn aborted(&self, key: &Key) -> Error {
        let by = if self.cancel.is_cancelled() {
            "cancelled by the caller"
        } else {
            "the lock manager is shut down"
        };
        Error::new(ErrorCode::Aborted, Operation::Acquire).with_key(key).with_message(by)
    }
}

/// A wait for one key.
pub(crate) struct Wait<'a> {
    pub(crate) manager: &'a Inner,
    pub(crate) attempts: &'a Attempts,
    pub(crate) key: &'a Key,
    pub(crate) limits: &'a Limits,
    /// How many attempts were made.
    pub(crate) made: u32,
}

impl Wait<'_> {
    /// Tries until the lock is granted.
    pub(crate) async fn run(
        &mut self,
        backoff: Backoff,
        retries: Option<u32>,
    ) -> Result<LockGuard> {
        let backend = &self.manager.backend.backend;
        let hints = backend.capabilities().pushes_hints();
        let mut pauses = backoff.pauses(retries);
        // One id for all attempts, so that an attempt whose reply was lost finds its own lease (A4).
        let id = LockId::random().map_err(|error| error.with_key(self.key))?;
        // Dropped on every way out but the grant.
        let mut unanswered: Option<Undo> = None;
        // A transient failure, if that is how the last attempt ended.
        let mut failure = None;
        // When the next attempt is due. One that a hint calls for comes earlier and does not count.
        let mut due: Option<Instant> = None;
        let mut hint = None;
        loop {
            self.made += 1;
            let attempt = match self.limits.bound(self.attempts.acquire(self.key, &id)).await {
                Ok(attempt) => attempt,
                Err(stop) => return Err(self.stopped(stop, failure)),
            };
            let tried = Instant::now();
            let remaining = match attempt {
                Attempt::Granted(guard) => return Ok(guard.with_earlier(unanswered)),
                Attempt::Held { .. } if hints && hint.is_none() => {
                    // From here on a release is told of; it may have come before, so try again.
                    hint = Some(Box::pin(backend.maybe_free(self.key)));
                    continue;
                }
                Attempt::Held { remaining } => {
                    failure = None;
                    remaining
                }
                Attempt::Failed(error, again) => {
                    // One is enough: they are for the same id.
                    if let Some(again) = again
                        && let Some(earlier) = unanswered.replace(again)
                    {
                        earlier.disarm();
                    }
                    if !error.is_transient() {
                        return Err(error);
                    }
                    failure = Some(error);
                    None
                }
            };
            let Some(next) = due.or_else(|| pauses.next().map(|pause| tried + pause)) else {
                return Err(self.stopped(Stop::TimeUp, failure));
            };
            let next = remaining.map_or(next, |left| next.min(after(tried, left.max(PACE))));
            due = Some(next);
            // After a failure a hint means nothing.
            let hinted = hint.as_mut().filter(|_| failure.is_none());
            let pause = async {
                tokio::select! {
                    () = sleep_until(next) => false,
                    () = paced(hinted, tried) => true,
                }
            };
            match self.limits.bound(pause).await {
                Ok(true) => {}
                Ok(false) => due = None,
                Err(stop) => return Err(self.stopped(stop, failure)),
            }
            // The new interest begins before the old one ends, and before the attempt.
            if hint.is_some() {
                hint = Some(Box::pin(backend.maybe_free(self.key)));
            }
        }
    }

    fn stopped(&self, stop: Stop, failure: Option<Error>) -> Error {
        match (stop, failure) {
            (Stop::Aborted, _) => self.limits.aborted(self.key),
            // W4: a transient failure that outlasts the limit is returned as itself.
            (Stop::TimeUp, Some(failure)) => failure,
            (Stop::TimeUp, None) => Error::new(ErrorCode::AcquisitionTimeout, Operation::Acquire)
                .with_key(self.key)
                .with_message(format!("not granted within the limits, attempts: {}", self.made)),
        }
    }
}

/// The least time between two attempts: neither a lease that is about to end nor hints that come
/// for no reason may make a waiter ask in a tight loop.
const PACE: Duration = Duration::from_millis(5);

/// Resolves with the hint, but not too soon after the last attempt; never without one.
async fn paced(hint: Option<impl Future<Output = ()>>, tried: Instant) {
    match hint {
        Some(hint) => {
            hint.await;
            sleep_until(tried + PACE).await;
        }
        None => pending().await,
    }
}

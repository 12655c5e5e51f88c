//! The loop that tries until the lock is ours or a limit is reached.

use std::time::Duration;

use syncguard_core::{Backend, Error, ErrorCode, Key, LockId, Operation, Result};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Attempts, Undo};
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
        let mut pauses = backoff.pauses(retries);
        // One id for all attempts, so that an attempt whose reply was lost finds its own lease (A4).
        let id = LockId::random().map_err(|error| error.with_key(self.key))?;
        // Dropped on every way out but the grant.
        let mut undo: Option<Undo> = None;
        let mut failure = None;
        // When the next attempt is due; one that a hint calls for comes earlier and does not count.
        let mut retry_at: Option<Instant> = None;
        loop {
            // Interest begins before the attempt, so that no release is missed in between.
            let maybe_free = self.manager.backend.backend.maybe_free(self.key);
            self.made += 1;
            let attempt = match self.limits.bound(self.attempts.acquire(self.key, &id)).await {
                Ok(attempt) => attempt,
                Err(stop) => return Err(self.stopped(stop, failure)),
            };
            let remaining = match attempt {
                Attempt::Granted(guard) => {
                    if let Some(undo) = undo {
                        undo.disarm();
                    }
                    return Ok(guard);
                }
                Attempt::Held { remaining } => {
                    failure = None;
                    remaining
                }
                Attempt::Failed(error, unanswered) => {
                    // One is enough: they are for the same id.
                    if let Some(unanswered) = unanswered
                        && let Some(earlier) = undo.replace(unanswered)
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
            let due = match retry_at {
                Some(due) => due,
                None => match pauses.next() {
                    Some(pause) => Instant::now() + pause,
                    None => return Err(self.stopped(Stop::TimeUp, failure)),
                },
            };
            let due =
                remaining.map_or(due, |remaining| due.min(Instant::now() + at_least(remaining)));
            retry_at = Some(due);
            // After a failure a hint means nothing.
            let held = failure.is_none();
            let pause = async {
                tokio::select! {
                    () = sleep_until(due) => true,
                    () = maybe_free, if held => false,
                }
            };
            match self.limits.bound(pause).await {
                Ok(true) => retry_at = None,
                Ok(false) => {}
                Err(stop) => return Err(self.stopped(stop, failure)),
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

/// A lease that is about to end is not asked after in a tight loop.
fn at_least(remaining: Duration) -> Duration {
    remaining.max(Duration::from_millis(1))
}

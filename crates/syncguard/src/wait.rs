//! The loop that tries until the lock is ours or a limit is reached.

use std::time::Duration;

use syncguard_core::{Backend, Error, ErrorCode, Key, LockId, Operation, Result};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Attempts, Undo};
use crate::hold::after;
use crate::line::{Heard, Look, Notification, Place, Stir};
use crate::manager::Inner;
use crate::{Backoff, LockGuard};

/// What ends a wait early.
#[derive(Debug)]
pub(crate) struct Limits {
    /// When the caller asked.
    pub(crate) begun: Instant,
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
    /// Stands in line until the lock is handed over, or tries until it is granted.
    pub(crate) async fn run(
        &mut self,
        backoff: Backoff,
        retries: Option<u32>,
    ) -> Result<LockGuard> {
        let backend = &self.manager.backend.backend;
        let notifications = backend.capabilities().receives_notifications();
        let interest = || Notification::new(backend.notified(self.key));
        let mut pauses = backoff.pauses(retries);
        // One id for all attempts, so that an attempt whose reply was lost finds its own lease (A4).
        let id = LockId::random().map_err(|error| error.with_key(self.key))?;
        // Dropped on every way out but the grant.
        let mut unanswered: Option<Undo> = None;
        // A transient failure, if that is how the last attempt ended.
        let mut failure = None;
        let mut tried: Option<Instant> = None;
        // When the next attempt is due. One that a notification calls for comes earlier and does not count.
        let mut due: Option<Instant> = None;
        // Until then no notification is listened to.
        let mut notifications_from: Option<Instant> = None;
        let mut place = self.manager.lines.join(self.key, &id, self.attempts);
        loop {
            let until = match place.look() {
                Look::Granted(guard) => {
                    return Ok(self.attempts.claimed(guard).with_earlier(unanswered));
                }
                Look::Unsure(undo) => {
                    keep_one(&mut unanswered, undo);
                    continue;
                }
                Look::Wait => {
                    let stirred = self.limits.bound(place.stirred(false)).await;
                    stirred.map_err(|stop| self.stopped(stop, failure.take(), &place))?;
                    continue;
                }
                Look::Held(until) => Some(until),
                Look::Try => None,
            };
            // After a failure nothing but the back-off tells when to try again.
            if until.is_some() || failure.is_some() && due.is_some() {
                let next = *due.get_or_insert_with(|| Instant::now() + backoff.first());
                let next = until.map_or(next, |until| next.min(until));
                let deaf = notifications_from.filter(|until| *until > Instant::now());
                let pause = async {
                    tokio::select! {
                        () = sleep_until(deaf.map_or(next, |until| next.min(until))) => None,
                        stir = place.stirred(failure.is_none() && deaf.is_none()) => Some(stir),
                    }
                };
                match self.limits.bound(pause).await {
                    Err(stop) => return Err(self.stopped(stop, failure, &place)),
                    Ok(Some(Stir::Woken)) => continue,
                    Ok(Some(Stir::Notificationed)) => {
                        // The new interest begins before the old one ends, and before the attempt.
                        place.listen(interest());
                        match place.notificationed() {
                            Heard::Try => {}
                            Heard::Rest => continue,
                            Heard::OldNews => {
                                notifications_from = Some(Instant::now() + PACE);
                                continue;
                            }
                        }
                        if let Some(tried) = tried {
                            let paced = self.limits.bound(sleep_until(tried + PACE)).await;
                            paced.map_err(|stop| self.stopped(stop, None, &place))?;
                        }
                    }
                    Ok(None) if deaf.is_some_and(|until| until < next) => continue,
                    Ok(None) => {
                        // In place of one that may have been lost.
                        if place.listens() {
                            place.listen(interest());
                        }
                        if due.is_some_and(|due| due > Instant::now()) {
                            // The lease that was to end may have been extended.
                            continue;
                        }
                        due = None;
                    }
                }
            }
            if !place.begin() {
                continue;
            }
            let acquire = async {
                self.made += 1;
                self.attempts.acquire(self.key, &id).await
            };
            let attempt = match self.limits.bound(acquire).await {
                Ok(attempt) => attempt,
                Err(stop) => return Err(self.stopped(stop, failure, &place)),
            };
            let now = Instant::now();
            tried = Some(now);
            match attempt {
                Attempt::Granted(guard) => return Ok(guard.with_earlier(unanswered)),
                Attempt::Held { remaining } => {
                    failure = None;
                    place.held(after(now, remaining.map_or(Duration::MAX, |left| left.max(PACE))));
                }
                Attempt::Failed(error, again) => {
                    if let Some(again) = again {
                        keep_one(&mut unanswered, again);
                    }
                    if !error.is_transient() {
                        return Err(error);
                    }
                    place.failed(error.code());
                    failure = Some(error);
                }
            }
            if due.is_none() {
                due = pauses.next().map(|pause| now + pause);
            }
            if due.is_none() {
                return Err(self.stopped(Stop::TimeUp, failure, &place));
            }
            if notifications && failure.is_none() && !place.listens() {
                // From here on a release is told of; it may have come before, so try again soon: at
                // once when the backend listens, which it tells by a notification.
                place.listen(interest());
                place.try_again_at(now + PACE);
            }
        }
    }

    fn stopped(&self, stop: Stop, failure: Option<Error>, place: &Place<'_>) -> Error {
        let error = |code| Error::new(code, Operation::Acquire).with_key(self.key);
        match (stop, failure) {
            (Stop::Aborted, _) => self.limits.aborted(self.key),
            // W4: a transient failure that outlasts the limit is returned as itself.
            (Stop::TimeUp, Some(failure)) => failure,
            (Stop::TimeUp, None) => match place.failure() {
                Some(code) => error(code).with_message("so failed whoever was first in line"),
                None => error(ErrorCode::AcquisitionTimeout).with_message(format!(
                    "not granted within the limits, attempts: {}",
                    self.made
                )),
            },
        }
    }
}

/// One is enough: they are for the same id.
fn keep_one(kept: &mut Option<Undo>, another: Undo) {
    if let Some(earlier) = kept.replace(another) {
        earlier.disarm();
    }
}

/// The least time between two attempts: neither a lease that is about to end nor notifications that come
/// for no reason may make a waiter ask in a tight loop.
const PACE: Duration = Duration::from_millis(1);

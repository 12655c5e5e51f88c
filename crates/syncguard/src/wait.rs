//! The loop that waits for one key: it stands in the queue, and tries while it is first.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Backend, Error, Key, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::Backoff;
use crate::attempt::{self, Attempt};
use crate::give_up::{Limit, give_up};
use crate::guard::LockGuard;
use crate::lease::after;
use crate::limits::{Limits, Stop};
use crate::queue::{Heard, Number, Position, Terms};
use crate::schedule::{LEAST_PAUSE, Next, Schedule};
use crate::shared::Shared;
use crate::subscription::Subscription;
use crate::ticket::Ticket;
use crate::undo::Undo;

/// A wait for one key.
pub(crate) struct Wait<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) home: &'a Handle,
    pub(crate) key: &'a Key,
    pub(crate) terms: &'a Terms,
    pub(crate) limits: &'a Limits,
}

/// What ended a sleep.
enum Woken {
    Timer,
    Queue,
    Notification,
}

impl Wait<'_> {
    /// Waits until the lock is granted or handed off. Counts the attempts in `attempts`.
    pub(crate) async fn run(
        &self,
        backoff: Backoff,
        retries: Option<u32>,
        attempts: &mut u32,
    ) -> Result<LockGuard> {
        let mut schedule = Schedule::new(backoff, retries);
        let mut ticket =
            Ticket::join(self.shared, self.home, self.key, self.terms, self.limits.started);
        // Reading the clock is a good part of the cost of a wait, so the first round does without.
        let mut known = Some(self.limits.started);
        loop {
            let now = known.take().unwrap_or_else(Instant::now);
            let (held_until, yields_until) = match ticket.position(now) {
                Position::Granted(grant) => {
                    let guard = LockGuard::new(self.shared.clone(), grant.lease, self.home.clone());
                    return Ok(guard.with_earlier(ticket.unanswered.take()));
                }
                Position::Uncertain => {
                    let undo = Undo::new(self.shared, self.home, self.key, self.terms);
                    ticket.remember(undo.tracked());
                    continue;
                }
                Position::Behind => {
                    let moved = self.bound(pin!(ticket.woken())).await;
                    moved.map_err(|stop| self.stopped(stop, &ticket, *attempts))?;
                    continue;
                }
                Position::First { held_until, yields_until, subscription } => {
                    ticket.take_over(subscription);
                    (held_until, yields_until)
                }
            };
            match schedule.next(now, held_until, yields_until) {
                Next::GiveUp => return Err(self.give_up(Limit::Retries, &ticket, *attempts)),
                Next::Sleep { until, listen } => {
                    let woken = self.bound(pin!(sleep(&mut ticket, until, listen))).await;
                    match woken.map_err(|stop| self.stopped(stop, &ticket, *attempts))? {
                        Woken::Queue => {}
                        Woken::Notification => {
                            // The new subscription begins before the old one ends, and before the
                            // attempt, so that no release in between is missed.
                            ticket.subscription = Some(self.subscribe());
                            if ticket.notified(Instant::now()) == Heard::Stale {
                                schedule.ignore_notifications(Instant::now());
                            }
                        }
                        // The backend may have lost the old subscription.
                        Woken::Timer if ticket.subscription.is_some() && listen => {
                            ticket.subscription = Some(self.subscribe());
                        }
                        Woken::Timer => {}
                    }
                }
                Next::Try if ticket.begin_attempt() => {
                    schedule.attempt_begins(now);
                    let attempt = self.bound(pin!(self.attempt(ticket.number, attempts))).await;
                    let attempt = attempt.map_err(|stop| self.stopped(stop, &ticket, *attempts))?;
                    match attempt {
                        Attempt::Granted(guard) => {
                            ticket.was_granted();
                            return Ok(guard.with_earlier(ticket.unanswered.take()));
                        }
                        Attempt::Held { remaining } => {
                            let now = Instant::now();
                            let left =
                                remaining.map_or(Duration::MAX, |left| left.max(LEAST_PAUSE));
                            ticket.attempt_held(now, after(now, left));
                            schedule.held(now);
                            if ticket.subscription.is_none() && self.receives_notifications() {
                                // From here on a release notifies this waiter. It may have come
                                // before that, so another attempt follows soon.
                                ticket.subscription = Some(self.subscribe());
                                ticket.listens_from(now + LEAST_PAUSE);
                            }
                        }
                        Attempt::Failed(error, undo) => {
                            if let Some(undo) = undo {
                                ticket.remember(undo);
                            }
                            if !error.is_transient() {
                                return Err(error);
                            }
                            let now = Instant::now();
                            ticket.attempt_failed(now, error);
                            schedule.failed(now);
                        }
                    }
                }
                // A lease is being handed off to this waiter, or just was.
                Next::Try => {}
            }
        }
    }

    fn bound<F: Future>(
        &self,
        future: Pin<&mut F>,
    ) -> impl Future<Output = Result<F::Output, Stop>> {
        self.limits.bound(self.shared.background.closing(), future)
    }

    /// An attempt counts when it is sent.
    async fn attempt(&self, waiter: Number, attempts: &mut u32) -> Attempt {
        *attempts += 1;
        attempt::acquire(self.shared, self.home, self.key, self.terms, Some(waiter)).await
    }

    fn receives_notifications(&self) -> bool {
        self.shared.backend.capabilities().receives_notifications()
    }

    fn subscribe(&self) -> Subscription {
        Subscription::new(self.shared.backend.backend.notified(self.key))
    }

    fn stopped(&self, stop: Stop, ticket: &Ticket<'_>, attempts: u32) -> Error {
        match stop {
            Stop::TimeUp => self.give_up(Limit::Time, ticket, attempts),
            stop => stop.without_answer(Operation::Acquire, self.key),
        }
    }

    fn give_up(&self, limit: Limit, ticket: &Ticket<'_>, attempts: u32) -> Error {
        give_up(limit, self.key, self.limits, ticket.known(Instant::now()), attempts)
    }
}

/// Sleeps until then at most. A notification ends the sleep only if `listen`.
async fn sleep(ticket: &mut Ticket<'_>, until: Instant, listen: bool) -> Woken {
    let woken = ticket.woken();
    // It stays in the ticket, so that the next waiter gets it if this future is dropped.
    let notified = async {
        match &mut ticket.subscription {
            Some(subscription) if listen => subscription.await,
            _ => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = woken => Woken::Queue,
        () = notified => Woken::Notification,
        () = sleep_until(until) => Woken::Timer,
    }
}

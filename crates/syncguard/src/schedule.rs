//! When the first waiter of a queue tries again: a decision from plain values, without a clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, Pauses};

/// The least time between two attempts. A lease that is about to end, or notifications without a
/// reason, must not make a waiter ask in a tight loop.
pub(crate) const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Make an attempt now.
    Try,
    /// Sleep, at most until then. If `listen`, a notification ends the sleep too.
    Sleep { until: Instant, listen: bool },
    /// All retries are used up.
    GiveUp,
}

/// The schedule of one waiter's attempts.
#[derive(Debug)]
pub(crate) struct Schedule {
    backoff: Backoff,
    pauses: Pauses,
    /// The pauses since the last answer, if the last attempt failed.
    failing: Option<Pauses>,
    /// How many retries are left, if they are limited.
    retries: Option<u32>,
    exhausted: bool,
    /// When the backoff asks for the next attempt. An attempt that a notification or the end of a
    /// lease asks for comes earlier, leaves this alone, and is no retry.
    due: Option<Instant>,
    /// No attempt before that.
    earliest: Option<Instant>,
    /// Notifications are ignored until then.
    deaf_until: Option<Instant>,
}

impl Schedule {
    pub(crate) fn new(backoff: Backoff, retries: Option<u32>) -> Self {
        Self {
            backoff,
            pauses: backoff.pauses(),
            failing: None,
            retries,
            exhausted: false,
            due: None,
            earliest: None,
            deaf_until: None,
        }
    }

    /// What to do at `now`, if the key is held until `held_until` as far as this process knows, and
    /// other processes have their turn until `yields_until`.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        held_until: Option<Instant>,
        yields_until: Option<Instant>,
    ) -> Next {
        if self.exhausted {
            return Next::GiveUp;
        }
        let later = |moment: &Instant| *moment > now;
        let wake_at = if self.failing.is_some() {
            // No answer says nothing about the key, so only the backoff counts.
            self.due.filter(later)
        } else {
            held_until.filter(later).and_then(|until| {
                let due = *self.due.get_or_insert_with(|| now + self.backoff.first_pause());
                Some(due.min(until)).filter(later)
            })
        };
        let wake_at = wake_at.max(yields_until.filter(later));
        let earliest = self.earliest.filter(later);
        let deaf_until = self.deaf_until.filter(later);
        match wake_at.max(earliest) {
            None => Next::Try,
            Some(until) => Next::Sleep {
                until: deaf_until.map_or(until, |deaf_until| deaf_until.min(until)),
                // If an attempt comes next anyway, a notification has nothing to add.
                listen: wake_at.is_some() && self.failing.is_none() && deaf_until.is_none(),
            },
        }
    }

    /// An attempt begins. If it is the one that the backoff asked for, the next one is a retry.
    pub(crate) fn attempt_begins(&mut self, now: Instant) {
        self.due = self.due.filter(|due| *due > now);
    }

    /// An attempt found the key held.
    pub(crate) fn held(&mut self, now: Instant) {
        self.failing = None;
        self.earliest = Some(now + LEAST_PAUSE);
        if self.due.is_none() && self.may_retry() {
            self.due = Some(now + self.pauses.next());
        }
    }

    /// An attempt failed, or its reply was lost.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.earliest = Some(now + LEAST_PAUSE);
        if self.may_retry() {
            // The pauses begin anew with the first failure, and stay short: the server may be back
            // in a moment.
            let pauses = self.failing.get_or_insert_with(|| self.backoff.pauses_after_failure());
            self.due = Some(now + pauses.next());
        }
    }

    /// A notification tells of an earlier release than the grant that this process holds.
    pub(crate) fn ignore_notifications(&mut self, now: Instant) {
        self.deaf_until = Some(now + LEAST_PAUSE);
    }

    fn may_retry(&mut self) -> bool {
        match &mut self.retries {
            Some(0) => self.exhausted = true,
            Some(left) => *left -= 1,
            None => {}
        }
        !self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Jitter;

    const MS: Duration = Duration::from_millis(1);

    /// The schedule of a waiter that pauses for `pause` milliseconds each time.
    fn schedule(pause: u32, retries: Option<u32>) -> Schedule {
        Schedule::new(Backoff::fixed(MS * pause).with_jitter(Jitter::None), retries)
    }

    /// A sleep that a notification ends.
    fn listen(until: Instant) -> Next {
        Next::Sleep { until, listen: true }
    }

    fn deaf(until: Instant) -> Next {
        Next::Sleep { until, listen: false }
    }

    #[test]
    fn w3_what_a_waiter_does_before_its_first_attempt() {
        let now = Instant::now();
        let table = [
            // Held until, in ms from now; what to do.
            (None, Next::Try),
            (Some(0), Next::Try),
            (Some(40), listen(now + MS * 40)),
            (Some(5_000), listen(now + MS * 70)),
        ];
        for (held_for, expected) in table {
            let held_until = held_for.map(|millis| now + MS * millis);
            assert_eq!(schedule(70, None).next(now, held_until, None), expected, "{held_for:?}");
        }
    }

    #[test]
    fn g8_no_attempt_is_made_while_others_have_their_turn() {
        let now = Instant::now();
        let (due, yields) = (now + MS * 70, now + MS * 90);
        let mut schedule = schedule(70, None);
        assert_eq!(schedule.next(now, None, Some(yields)), listen(yields));
        assert_eq!(schedule.next(now, Some(now + MS * 999), Some(yields)), listen(yields));
        assert_eq!(schedule.next(due, Some(now + MS * 999), Some(yields)), listen(yields));
        assert_eq!(schedule.next(yields, Some(now + MS * 999), Some(yields)), Next::Try);
    }

    #[test]
    fn w3_a_pause_is_cut_to_the_time_that_the_lease_still_has() {
        let now = Instant::now();
        for (held_for, sleeps) in [(30, 30), (200, 200), (400, 300)] {
            let mut schedule = schedule(300, None);
            schedule.held(now);
            let next = schedule.next(now, Some(now + MS * held_for), None);
            assert_eq!(next, listen(now + MS * sleeps));
        }
    }

    #[test]
    fn w3_attempts_keep_a_least_distance() {
        let now = Instant::now();
        let mut schedule = schedule(300, None);
        schedule.held(now);
        assert_eq!(schedule.next(now, None, None), deaf(now + LEAST_PAUSE));
        assert_eq!(schedule.next(now + LEAST_PAUSE, None, None), Next::Try);
    }

    #[test]
    fn w8_an_attempt_that_a_notification_asks_for_is_no_retry() {
        let now = Instant::now();
        let mut schedule = schedule(300, Some(1));
        schedule.held(now);
        for millis in [50, 100, 150] {
            // The notification says that the key may be free.
            let then = now + MS * millis;
            assert_eq!(schedule.next(then, None, None), Next::Try);
            schedule.attempt_begins(then);
            schedule.held(then);
        }
        let due = now + MS * 300;
        assert_eq!(schedule.next(now + MS * 200, Some(now + MS * 999), None), listen(due));
        assert_eq!(schedule.next(due, Some(now + MS * 999), None), Next::Try);
        schedule.attempt_begins(due);
        schedule.held(due);
        assert_eq!(
            schedule.next(due, Some(now + MS * 999), None),
            Next::GiveUp,
            "one retry is allowed"
        );
    }

    #[test]
    fn w4_after_a_failure_only_the_backoff_counts() {
        let now = Instant::now();
        let mut schedule = schedule(100, None);
        schedule.failed(now);
        assert_eq!(schedule.next(now, None, None), deaf(now + MS * 100));
        assert_eq!(schedule.next(now, Some(now + MS * 5), None), deaf(now + MS * 100));
        assert_eq!(schedule.next(now + MS * 100, None, None), Next::Try);
    }

    #[test]
    fn w4_pauses_after_failures_stay_short() {
        let mut now = Instant::now();
        let backoff = Backoff::exponential(MS * 100).with_jitter(Jitter::None);
        let mut schedule = Schedule::new(backoff, None);
        for pause in [100, 200, 400, 800, 900, 900, 900] {
            schedule.attempt_begins(now);
            schedule.failed(now);
            let Next::Sleep { until, listen: false } = schedule.next(now, None, None) else {
                panic!("expected a sleep, deaf to notifications");
            };
            let slept = until - now;
            // The doubling is done in floating point.
            assert_eq!(slept.as_micros(), u128::from(pause * 1_000_u32));
            now = until;
        }
        // An answer ends the row of failures.
        schedule.attempt_begins(now);
        schedule.held(now);
        schedule.attempt_begins(now + MS * 100);
        schedule.failed(now);
        assert_eq!(schedule.next(now, None, None), deaf(now + MS * 100));
    }

    #[test]
    fn w9_an_outdated_notification_is_ignored_for_a_moment() {
        let now = Instant::now();
        let mut schedule = schedule(300, None);
        schedule.held(now);
        schedule.ignore_notifications(now);
        let held_until = Some(now + MS * 200);
        assert_eq!(schedule.next(now, held_until, None), deaf(now + LEAST_PAUSE));
        assert_eq!(schedule.next(now + LEAST_PAUSE, held_until, None), listen(now + MS * 200));
    }

    #[test]
    fn w1_without_retries_one_attempt_is_made() {
        let now = Instant::now();
        let mut schedule = schedule(300, Some(0));
        assert_eq!(schedule.next(now, None, None), Next::Try);
        schedule.held(now);
        assert_eq!(schedule.next(now, None, None), Next::GiveUp);
    }
}

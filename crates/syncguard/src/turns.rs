//! Fairness: how the processes that wait for one key take turns.
//!
//! A process keeps a key for a *turn* of several grants, because a handoff is cheaper than a release.
//! After its turn it *yields*: it lets some notifications pass before it tries again, each of which
//! tells of a release. If it lets as many pass as there are other processes, each of them has its
//! turn. Nobody tells it that number, so it learns it. It lets one fewer pass if the key was still
//! free at the end of the yield, and slowly one more if others were faster. An attempt in vain costs a
//! request, but a yield that is too long leaves the key idle.
//!
//! A process that knows of no others yields only until the notification of its own release. Processes
//! with a longer way to the server would lose every such race, so now and then it yields longer, to
//! find out whether there are any.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// The grants of a turn, if others are notified when it ends.
const GRANTS: u32 = 16;
/// The time of a turn, whether others are notified or not.
const TIME: Duration = Duration::from_secs(1);

/// If nobody took the key in this time after a notification, nobody waits for it whose way to the
/// server is not that much longer.
const SHORT_YIELD: Duration = Duration::from_millis(2);
/// Gives clients that ask by timer a chance. Local waiters wait for the yield too, so it is no longer
/// than the turn was.
const LONG_YIELD: Duration = Duration::from_millis(50);

/// How often a process that knows of no others yields longer. It costs little at that rate.
const PROBE: Duration = Duration::from_millis(150);
/// How long a process must seem to be alone before it yields for the longest ways and for pollers.
const ALONE: Duration = Duration::from_secs(5);

/// Lost races in a row before we yield one more release to other processes.
const LOST_RACES: u32 = 4;
const MOST_PASSES: u32 = 64;

/// Clients that only poll do so every 0.1 to 1.6 s. A yield that serves them must be long: first some
/// of them must find the key free, and then they must keep it for a tenth of the time.
const POLLERS_EVERY: Duration = Duration::from_secs(4);
const POLLERS_YIELD: Duration = Duration::from_secs(1);

/// What is known of the other clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peers {
    /// A release of this process notifies them.
    pub(crate) notified: bool,
    /// A release of theirs notifies this process.
    pub(crate) notify_us: bool,
    /// Some of them only poll, and must get their share.
    pub(crate) poll: bool,
}

/// The turns of one process at one key.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    began: Option<Instant>,
    grants: u32,
    next_attempt: NextAttempt,
    /// How many notifications to let pass in a yield, as far as it learned, and how often in a row
    /// that was too few.
    passes: u32,
    lost_races: u32,
    /// When it last looked for others, and since when there seem to be none.
    probed: Option<Instant>,
    alone_since: Option<Instant>,
    /// Since when pollers had no time of their own.
    pollers_wait_since: Option<Instant>,
}

/// What the outcome of the next attempt says.
#[derive(Clone, Copy, Debug, Default)]
enum NextAttempt {
    /// Nothing.
    #[default]
    Plain,
    /// The turn goes on: the first waiter knew of the release before others did.
    GoesOn,
    /// Whether the yield was too long. It ends by its time, unless more than `passes` notifications
    /// come before that.
    Yielding { passes: u32, patience: Duration, probe: bool },
    /// Whether the yield was too short. It ended with a notification.
    AfterYield { probe: bool },
    /// Pollers have their time, whatever notifications say.
    ForPollers { until: Instant },
}

impl Turns {
    /// An attempt was granted.
    pub(crate) fn granted(&mut self, now: Instant) {
        match mem::take(&mut self.next_attempt) {
            NextAttempt::GoesOn => {
                self.grants += 1;
                return;
            }
            // The key was free.
            NextAttempt::Yielding { .. } => self.passes = self.passes.saturating_sub(1),
            NextAttempt::AfterYield { probe } => {
                self.lost_races = 0;
                // After its own release it heard of another one.
                if probe {
                    self.sees_others(now);
                }
            }
            NextAttempt::Plain | NextAttempt::ForPollers { .. } => {}
        }
        self.alone_since.get_or_insert(now);
        self.pollers_wait_since.get_or_insert(now);
        self.began = Some(now);
        self.grants = 1;
    }

    /// An attempt found the key held.
    pub(crate) fn lost_race(&mut self, now: Instant) {
        self.alone_since = Some(now);
        match self.next_attempt {
            NextAttempt::AfterYield { .. } => {
                self.lost_races += 1;
                if self.lost_races == LOST_RACES {
                    self.lost_races = 0;
                    self.passes = (self.passes + 1).min(MOST_PASSES);
                }
            }
            NextAttempt::Yielding { .. } => return self.sees_others(now),
            NextAttempt::GoesOn | NextAttempt::Plain | NextAttempt::ForPollers { .. } => {}
        }
        self.next_attempt = NextAttempt::Plain;
    }

    fn sees_others(&mut self, now: Instant) {
        self.passes = self.passes.max(1);
        self.alone_since = Some(now);
    }

    /// A lease was handed off within the process.
    pub(crate) fn handed_off(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.grants += 1;
    }

    /// The first waiter learns of a release before others do.
    pub(crate) const fn go_on(&mut self) {
        self.next_attempt = NextAttempt::GoesOn;
    }

    /// Whether the turn is over.
    pub(crate) fn are_over(&self, now: Instant, peers: Peers) -> bool {
        let lasts = |since: Option<Instant>, time| since.is_some_and(|since| now - since >= time);
        peers.notified && self.grants >= GRANTS
            || lasts(self.began, TIME)
            || peers.poll && self.pollers_are_due(now)
    }

    fn pollers_are_due(&self, now: Instant) -> bool {
        // It lies ahead while they have their time.
        self.pollers_wait_since
            .is_some_and(|since| now.saturating_duration_since(since) >= POLLERS_EVERY)
    }

    /// The turn ends with a release. Returns when to try again unless notifications come, or `None`
    /// for at once, if no notification would end the yield in time.
    pub(crate) fn yield_key(
        &mut self,
        now: Instant,
        peers: Peers,
        listening: bool,
    ) -> Option<Instant> {
        if peers.poll && self.pollers_are_due(now) {
            let until = now + POLLERS_YIELD;
            self.pollers_wait_since = Some(until);
            self.next_attempt = NextAttempt::ForPollers { until };
            return Some(until);
        }
        let passed = |since: Option<Instant>, time| since.is_none_or(|since| now - since >= time);
        let alone = self.alone_since.is_some() && passed(self.alone_since, ALONE);
        let long = !peers.notify_us || alone;
        if long {
            self.alone_since = Some(now);
        }
        let probe = long || self.passes == 0 && passed(self.probed, PROBE);
        if probe {
            self.probed = Some(now);
        } else if self.passes == 0 && !listening {
            self.next_attempt = NextAttempt::Plain;
            return None;
        }
        let turn = self.began.map_or(LONG_YIELD, |began| now - began);
        let patience = if long { turn.clamp(SHORT_YIELD, LONG_YIELD) } else { SHORT_YIELD };
        let passes = if probe { self.passes.max(1) } else { self.passes };
        self.next_attempt = NextAttempt::Yielding { passes, patience, probe };
        Some(now + patience)
    }

    /// A notification came. Returns until when the yield goes on, if it does.
    pub(crate) fn notified(&mut self, now: Instant) -> Option<Instant> {
        match &mut self.next_attempt {
            NextAttempt::Yielding { passes: 0, probe, .. } => {
                self.next_attempt = NextAttempt::AfterYield { probe: *probe };
            }
            NextAttempt::Yielding { passes, patience, .. } => {
                *passes -= 1;
                return Some(now + *patience);
            }
            NextAttempt::ForPollers { until } if *until > now => return Some(*until),
            NextAttempt::ForPollers { .. }
            | NextAttempt::GoesOn
            | NextAttempt::Plain
            | NextAttempt::AfterYield { .. } => {}
        }
        None
    }
}

//! Fairness: decides when this process lets other processes acquire a key.
//!
//! Within a process, a lease passes from waiter to waiter by handoff, which costs less than a release
//! and an acquire. So a process keeps a key for a *turn*: 16 grants, or one second. Then it releases
//! plainly and *yields*: it lets the notification of its own release pass, and tries again at the next
//! one, when another process has released, or after 2 ms.
//!
//! A process that has seen no others does not wait: it tries again when it hears of its own release.
//! Every 150 ms it yields nevertheless, to find out whether there are others.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// The grants of a turn, if others are notified when it ends.
const GRANTS: u32 = 16;
/// The time of a turn, whether others are notified or not.
const TIME: Duration = Duration::from_secs(1);

/// If the key stays free this long after a notification, no process with a similar way to the server
/// waits for it.
const SHORT_YIELD: Duration = Duration::from_millis(2);
/// Gives processes that are farther away, or that ask by timer, a chance. Waiters of this process wait
/// too, so a yield is no longer than the turn was.
const LONG_YIELD: Duration = Duration::from_millis(50);

/// How long others count as present after they were seen.
const PRESENT: Duration = Duration::from_secs(1);
/// How often a process that sees no others yields to find some.
const PROBE: Duration = Duration::from_millis(150);
/// How often a process that sees no others yields for long.
const ALONE: Duration = Duration::from_secs(5);

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
    state: State,
    /// When another process was last seen to use the key.
    others_seen: Option<Instant>,
    /// When this process last yielded to find others, shortly and for long.
    probed: Option<Instant>,
    yielded_long: Option<Instant>,
    /// Since when pollers had no time of their own. In the future while they have it.
    pollers_wait_since: Option<Instant>,
}

/// What happens before the next grant.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Anybody may be first.
    #[default]
    Open,
    /// The turn goes on: the first waiter of this process learns of a release before others do.
    GoesOn,
    /// Others have their turn, until more than `passes` notifications have come or the time is over.
    Yielding { passes: u32, patience: Duration },
    /// Pollers have their time, whatever notifications say.
    ForPollers { until: Instant },
}

impl Turns {
    /// An attempt was granted.
    pub(crate) fn granted(&mut self, now: Instant) {
        if let State::GoesOn = mem::take(&mut self.state) {
            self.grants += 1;
            return;
        }
        self.began = Some(now);
        self.grants = 1;
        self.yielded_long.get_or_insert(now);
        self.pollers_wait_since.get_or_insert(now);
    }

    /// A lease was handed off within the process.
    pub(crate) fn handed_off(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.grants += 1;
    }

    /// An attempt found the key held.
    pub(crate) const fn refused(&mut self, now: Instant) {
        self.others_seen = Some(now);
        self.state = State::Open;
    }

    /// The first waiter learns of a release before others do.
    pub(crate) const fn go_on(&mut self) {
        self.state = State::GoesOn;
    }

    /// Whether the turn of this process is over.
    pub(crate) fn is_over(&self, now: Instant, peers: Peers) -> bool {
        peers.notified && self.grants >= GRANTS
            || lasted(self.began, TIME, now)
            || peers.poll && lasted(self.pollers_wait_since, POLLERS_EVERY, now)
    }

    /// The turn ends with a release. Returns until when to yield unless notifications come, or `None`
    /// to try again at once, because no notification would end the yield in time.
    pub(crate) fn yield_key(
        &mut self,
        now: Instant,
        peers: Peers,
        listening: bool,
    ) -> Option<Instant> {
        if peers.poll && lasted(self.pollers_wait_since, POLLERS_EVERY, now) {
            let until = now + POLLERS_YIELD;
            self.pollers_wait_since = Some(until);
            self.state = State::ForPollers { until };
            return Some(until);
        }
        let others = self.others_seen.is_some_and(|seen| now - seen < PRESENT);
        let long = !peers.notify_us || !others && lasted(self.yielded_long, ALONE, now);
        let probe = long || !others && self.probed.is_none_or(|probed| now - probed >= PROBE);
        if long {
            self.yielded_long = Some(now);
        }
        if probe {
            self.probed = Some(now);
        }
        if !(others || probe || listening) {
            self.state = State::Open;
            return None;
        }
        let turn = self.began.map_or(LONG_YIELD, |began| now - began);
        let patience = if long { turn.clamp(SHORT_YIELD, LONG_YIELD) } else { SHORT_YIELD };
        // The first notification is the one of this process's own release.
        self.state = State::Yielding { passes: u32::from(others || probe), patience };
        Some(now + patience)
    }

    /// A notification came. Returns until when the yield goes on, if it does.
    pub(crate) fn notified(&mut self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Yielding { passes: 0, .. } => self.state = State::Open,
            State::Yielding { passes, patience } => {
                self.state = State::Yielding { passes: passes - 1, patience };
                return Some(now + patience);
            }
            State::ForPollers { until } if until > now => return Some(until),
            State::ForPollers { .. } | State::GoesOn | State::Open => {}
        }
        None
    }
}

fn lasted(since: Option<Instant>, time: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    const NOTIFIED: Peers = Peers { notified: true, notify_us: true, poll: false };
    const SILENT: Peers = Peers { notified: false, notify_us: false, poll: false };

    /// A turn of this many grants that began at `now`.
    fn turn(grants: u32, now: Instant) -> Turns {
        let mut turns = Turns::default();
        turns.granted(now);
        (1..grants).for_each(|_| turns.handed_off(now));
        turns
    }

    #[test]
    fn g8_a_turn_ends_after_sixteen_grants_if_others_are_notified() {
        let now = Instant::now();
        assert!(!turn(15, now).is_over(now, NOTIFIED));
        assert!(turn(16, now).is_over(now, NOTIFIED));
        let not_received = Peers { notify_us: false, ..NOTIFIED };
        assert!(turn(16, now).is_over(now, not_received), "others hear of the release");
        assert!(!turn(1_000, now).is_over(now, SILENT), "nobody would hear of the release");
    }

    #[test]
    fn g8_a_turn_ends_after_a_second_in_any_case() {
        let now = Instant::now();
        let mut handed_off = Turns::default();
        handed_off.handed_off(now);
        for turns in [turn(1, now), handed_off] {
            for peers in [NOTIFIED, SILENT] {
                assert!(!turns.is_over(now + MS * 999, peers));
                assert!(turns.is_over(now + MS * 1_000, peers));
            }
        }
    }

    #[test]
    fn g8_a_turn_goes_on_over_a_release_that_a_local_waiter_knows_first() {
        let now = Instant::now();
        let mut turns = turn(1, now);
        for _ in 1..16 {
            assert!(!turns.is_over(now, NOTIFIED));
            turns.go_on();
            turns.granted(now + MS * 600);
        }
        assert!(turns.is_over(now, NOTIFIED), "by the grants");
        assert!(turns.is_over(now + MS * 1_000, SILENT), "by the time");
    }

    #[test]
    fn g8_after_a_refused_attempt_a_new_turn_begins() {
        let now = Instant::now();
        let mut turns = turn(15, now);
        turns.go_on();
        turns.refused(now + MS * 600);
        turns.granted(now + MS * 600);
        let later = now + MS * 1_200;
        assert!(!turns.is_over(later, NOTIFIED) && !turns.is_over(later, SILENT));
    }

    #[test]
    fn g8_beside_others_the_second_notification_ends_a_yield() {
        let now = Instant::now();
        let mut turns = turn(16, now);
        turns.refused(now);
        assert_eq!(turns.yield_key(now, NOTIFIED, true), Some(now + SHORT_YIELD));
        assert_eq!(turns.notified(now + MS), Some(now + MS + SHORT_YIELD), "its own release");
        assert_eq!(turns.notified(now + MS * 2), None, "the release of another process");
    }

    #[test]
    fn g8_alone_its_own_notification_ends_a_yield() {
        let now = Instant::now();
        let mut turns = turn(16, now);
        assert!(turns.yield_key(now, NOTIFIED, true).is_some(), "the first yield is a probe");
        turns.granted(now);
        assert_eq!(turns.yield_key(now, NOTIFIED, true), Some(now + SHORT_YIELD));
        assert_eq!(turns.notified(now), None);
        turns.granted(now);
        assert_eq!(turns.yield_key(now, NOTIFIED, false), None, "no notification would come");
    }

    #[test]
    fn g8_alone_it_yields_now_and_then_to_find_others() {
        let mut now = Instant::now();
        let mut turns = turn(16, now);
        for _ in 0..5 {
            let until = turns.yield_key(now, NOTIFIED, false);
            assert_eq!(until, Some(now + SHORT_YIELD));
            assert_eq!(turns.notified(now), until, "its own release does not end it");
            turns.granted(now);
            assert_eq!(turns.yield_key(now + PROBE - MS, NOTIFIED, false), None, "too early");
            turns.granted(now);
            now += PROBE;
        }
    }

    #[test]
    fn g8_alone_for_long_it_yields_as_long_as_its_turn_was() {
        let now = Instant::now();
        for (lasted, yields) in [(MS, SHORT_YIELD), (MS * 20, MS * 20), (MS * 60, LONG_YIELD)] {
            let mut turns = turn(1, now);
            let begins = now + ALONE;
            turns.granted(begins);
            let ends = begins + lasted;
            assert_eq!(turns.yield_key(ends, NOTIFIED, true), Some(ends + yields));
            turns.granted(ends);
            let next = ends + ALONE - MS;
            assert_eq!(turns.yield_key(next, NOTIFIED, true), Some(next + SHORT_YIELD));
        }
    }

    #[test]
    fn g8_others_are_forgotten_after_a_second() {
        let now = Instant::now();
        let mut turns = turn(16, now);
        turns.refused(now);
        turns.probed = Some(now + PRESENT);
        assert!(turns.yield_key(now + PRESENT - MS, NOTIFIED, false).is_some());
        assert_eq!(turns.yield_key(now + PRESENT, NOTIFIED, false), None);
    }

    #[test]
    fn g8_without_notifications_a_yield_gives_time() {
        let now = Instant::now();
        let mut turns = turn(1, now);
        let ends = now + TIME;
        assert_eq!(turns.yield_key(ends, SILENT, false), Some(ends + LONG_YIELD));
    }

    #[test]
    fn w11_pollers_get_a_second_of_every_five() {
        let now = Instant::now();
        let peers = Peers { poll: true, ..NOTIFIED };
        let mut turns = turn(1, now);
        let mut ends = now + POLLERS_EVERY;
        for _ in 0..3 {
            assert!(!lasted(turns.pollers_wait_since, POLLERS_EVERY, ends - MS));
            assert!(turns.is_over(ends, peers));
            assert_eq!(turns.yield_key(ends, peers, true), Some(ends + POLLERS_YIELD));
            assert_eq!(turns.notified(ends + MS), Some(ends + POLLERS_YIELD), "not their releases");
            ends += POLLERS_YIELD;
            assert_eq!(turns.notified(ends), None);
            turns.granted(ends);
            ends += POLLERS_EVERY;
        }
    }
}

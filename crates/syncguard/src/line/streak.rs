//! How those who wait in several processes take turns.
//!
//! A process keeps a key for a *streak* of grants, since to hand a lease over is cheaper than to
//! release it. Then it rests: it lets so many hints pass by, each a release, that every other process
//! which waits has had its turn. How many those are nobody knows, so it learns: less when it found
//! the key free while it rested, and slowly more while it finds after its rest that others are
//! faster. To ask in vain costs a request, but to rest for too long leaves the key idle.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// After so many grants in a row, others get their turn, where they are told of it.
const GRANTS: u32 = 16;
/// After this time they get it whether they are told or not.
const TIME: Duration = Duration::from_secs(1);

/// A key that was released this long ago, and told of, is free: nobody else wants it.
const REST_TOLD: Duration = Duration::from_millis(2);
/// Where nobody is told, for so long that those who look now and then have a chance.
const REST: Duration = Duration::from_millis(50);

/// So many times others are faster until one turn more is left to them.
const TOO_SOON: u32 = 4;
const MOST_TURNS: u32 = 64;

/// The grants of one key in a row that never left this process, and the rest between streaks.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    began: Option<Instant>,
    grants: u32,
    /// The next grant goes on with it: the first in line was told of the release before others.
    goes_on: bool,
    /// How many turns others have between two streaks, as far as was learnt, and how often that was
    /// too few.
    turns: u32,
    too_soon: u32,
    /// How many of them are still to come.
    to_come: u32,
    /// The rest has ended, or will end, with a hint. The attempt that follows tells whether that was
    /// too soon.
    rests: bool,
    was_hinted: bool,
}

impl Streak {
    /// An attempt was granted.
    pub(crate) fn granted(&mut self) {
        if mem::take(&mut self.goes_on) {
            self.grants += 1;
            return;
        }
        if mem::take(&mut self.to_come) > 0 {
            self.turns -= 1;
        }
        if mem::take(&mut self.was_hinted) {
            self.too_soon = 0;
        }
        self.rests = false;
        self.began = Some(Instant::now());
        self.grants = 1;
    }

    /// An attempt found the key held.
    pub(crate) fn held(&mut self) {
        self.goes_on = false;
        if mem::take(&mut self.was_hinted) {
            self.too_soon += 1;
            if self.too_soon == TOO_SOON {
                self.too_soon = 0;
                self.turns = (self.turns + 1).min(MOST_TURNS);
            }
        }
    }

    /// A lease was handed over.
    pub(crate) fn handed_over(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        self.grants += 1;
    }

    /// A release is told to the first in line.
    pub(crate) const fn goes_on(&mut self) {
        self.goes_on = true;
    }

    /// Whether it is the turn of others, who are told of a release or not.
    pub(crate) fn is_over(&self, told: bool) -> bool {
        told && self.grants >= GRANTS || self.began.is_some_and(|began| began.elapsed() >= TIME)
    }

    /// The turns of others begin with a release. Until when to rest, unless hints come.
    pub(crate) fn rest(&mut self, told: bool) -> Instant {
        self.to_come = self.turns;
        self.rests = true;
        Instant::now() + if told { REST_TOLD } else { REST }
    }

    /// A hint has come. Until when to rest all the same, if it is still the turn of others.
    pub(crate) fn hinted(&mut self) -> Option<Instant> {
        if self.to_come > 0 {
            self.to_come -= 1;
            return Some(Instant::now() + REST_TOLD);
        }
        self.was_hinted = mem::take(&mut self.rests);
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A streak of so many grants.
    fn streak_of(grants: u32) -> Streak {
        let mut streak = Streak::default();
        streak.granted();
        (1..grants).for_each(|_| streak.handed_over());
        streak
    }

    /// After a rest that ended with a hint, others were faster.
    fn too_soon(streak: &mut Streak) {
        streak.rest(true);
        while streak.hinted().is_some() {}
        streak.held();
    }

    /// One that learnt to leave so many turns to others.
    fn learnt(turns: u32) -> Streak {
        let mut streak = Streak::default();
        (0..turns * TOO_SOON).for_each(|_| too_soon(&mut streak));
        assert_eq!(streak.turns, turns);
        streak
    }

    #[tokio::test(start_paused = true)]
    async fn g8_it_is_over_after_sixteen_grants_where_others_are_told() {
        assert!(!streak_of(15).is_over(true));
        assert!(streak_of(16).is_over(true));
        assert!(!streak_of(1_000).is_over(false), "nobody would know that it is their turn");
    }

    #[tokio::test(start_paused = true)]
    async fn g8_it_is_over_after_a_second_anyway() {
        let granted = streak_of(1);
        let mut handed_over = Streak::default();
        handed_over.handed_over();
        for streak in [&granted, &handed_over] {
            assert!(!streak.is_over(true) && !streak.is_over(false));
        }
        advance(999 * MS).await;
        for streak in [&granted, &handed_over] {
            assert!(!streak.is_over(true) && !streak.is_over(false));
        }
        advance(MS).await;
        for streak in [&granted, &handed_over] {
            assert!(streak.is_over(true) && streak.is_over(false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn g8_it_goes_on_over_a_release_that_the_first_in_line_was_told_of() {
        let mut streak = streak_of(1);
        for _ in 1..16 {
            assert!(!streak.is_over(true));
            streak.goes_on();
            streak.granted();
        }
        assert!(streak.is_over(true), "by the grants");

        let mut streak = streak_of(1);
        advance(600 * MS).await;
        streak.goes_on();
        streak.granted();
        advance(400 * MS).await;
        assert!(streak.is_over(false), "by the time");
    }

    #[tokio::test(start_paused = true)]
    async fn g8_after_a_lost_race_another_begins() {
        let mut streak = streak_of(15);
        advance(600 * MS).await;
        streak.goes_on();
        streak.held();
        streak.granted();
        advance(600 * MS).await;
        assert!(!streak.is_over(true) && !streak.is_over(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_is_short_where_others_are_told() {
        let now = Instant::now();
        assert_eq!(Streak::default().rest(true), now + REST_TOLD);
        assert_eq!(Streak::default().rest(false), now + REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_lets_as_many_hints_pass_as_were_learnt() {
        for turns in 0..4 {
            let mut streak = learnt(turns);
            streak.rest(true);
            for _ in 0..turns {
                advance(MS).await;
                assert_eq!(streak.hinted(), Some(Instant::now() + REST_TOLD));
            }
            assert_eq!(streak.hinted(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_learns_a_turn_when_others_were_faster_four_times_in_a_row() {
        let mut streak = learnt(2);
        for _ in 0..3 {
            too_soon(&mut streak);
            assert_eq!(streak.turns, 2);
        }
        too_soon(&mut streak);
        assert_eq!(streak.turns, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_learns_nothing_from_attempts_at_later_hints() {
        let mut streak = Streak::default();
        for _ in 0..3 {
            too_soon(&mut streak);
            for _ in 0..10 {
                assert_eq!(streak.hinted(), None);
                streak.held();
            }
        }
        assert_eq!(streak.turns, 0);
        too_soon(&mut streak);
        assert_eq!(streak.turns, 1, "nor do they start the count again");
    }

    #[tokio::test(start_paused = true)]
    async fn it_learns_nothing_from_attempts_that_no_hint_called_for() {
        let mut streak = learnt(1);
        for _ in 0..10 {
            streak.rest(true);
            streak.held();
        }
        assert_eq!(streak.turns, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_success_starts_the_count_again() {
        let mut streak = Streak::default();
        (0..3).for_each(|_| too_soon(&mut streak));
        streak.rest(true);
        assert_eq!(streak.hinted(), None);
        streak.granted();
        (0..3).for_each(|_| too_soon(&mut streak));
        assert_eq!(streak.turns, 0);
        too_soon(&mut streak);
        assert_eq!(streak.turns, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_a_turn_less_when_the_key_was_free_while_it_rested() {
        let mut streak = learnt(3);
        streak.rest(true);
        streak.granted();
        assert_eq!(streak.turns, 2, "without a hint");
        streak.rest(true);
        assert!(streak.hinted().is_some());
        streak.granted();
        assert_eq!(streak.turns, 1, "after one of two");
        streak.rest(true);
        assert!(streak.hinted().is_some());
        assert!(streak.hinted().is_none());
        streak.granted();
        assert_eq!(streak.turns, 1, "the key was free after all had had their turn");
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_learns_stays_within_bounds() {
        let mut streak = Streak::default();
        streak.rest(true);
        streak.granted();
        assert_eq!(streak.turns, 0);

        let mut streak = learnt(MOST_TURNS);
        (0..TOO_SOON).for_each(|_| too_soon(&mut streak));
        assert_eq!(streak.turns, MOST_TURNS);
    }

    #[test]
    fn g8_a_rest_that_ended_by_its_time_teaches_nothing_later() {
        let mut streak = Streak::default();
        for _ in 0..TOO_SOON {
            streak.rest(true);
            streak.granted();
            streak.goes_on();
            // A race that is lost after a plain release, and another one after a hint.
            streak.held();
            assert!(streak.hinted().is_none());
            streak.held();
        }
        assert_eq!(streak.turns, 0);
    }
}

//! How those who wait in several processes take turns.
//!
//! A process keeps a key for a *streak* of grants, since to hand a lease over is cheaper than to
//! release it. Then it rests: it lets so many notifications pass by, each a release, the first one its own,
//! that every other process which waits has had its turn. How many those are nobody knows, so it
//! learns: less when the key was still free after its rest, and slowly more while others are faster
//! after it. To ask in vain costs a request, but to rest for too long leaves the key idle.
//!
//! A process that knows of nobody else rests only until it hears of its own release. Others that have
//! a longer way to the server would come too late each time, so now and then it rests for longer, to
//! find out whether they are there.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// After so many grants in a row, others get their turn, where they are told of it.
const GRANTS: u32 = 16;
/// After this time they get it whether they are told or not.
const TIME: Duration = Duration::from_secs(1);

/// A key that was released this long ago, and told of, is free: nobody wants it whose way to the
/// server is not that much longer.
const REST_TOLD: Duration = Duration::from_millis(2);
/// Where nobody is told, those who look now and then have a chance. But whoever waits here waits for
/// the rest as well, so it is no longer than the streak was.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// How often it looks whether there are others with a longer way: so little is lost by that.
const LOOK: Duration = Duration::from_millis(150);
/// After so long without others it makes room for those who have the longest way, or only look.
const ALONE: Duration = Duration::from_secs(5);

/// So many times others are faster until one turn more is left to them.
const TOO_SOON: u32 = 4;
const MOST_TURNS: u32 = 64;

/// The grants of one key in a row that never left this process, and the rest between streaks.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    began: Option<Instant>,
    grants: u32,
    attempt: Next,
    /// How many releases pass by between two streaks, as far as was learnt, and how often that was
    /// too few.
    turns: u32,
    too_soon: u32,
    /// When it last looked for others, and since when there seem to be none.
    looked: Option<Instant>,
    alone_since: Option<Instant>,
}

/// What the outcome of the next attempt tells.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// Nothing.
    #[default]
    New,
    /// The streak goes on: the first in line was told of the release before others.
    GoesOn,
    /// Whether the rest was too long: it ends by its time, unless so many notifications come before that and
    /// one more.
    Rests { to_come: u32, patience: Duration, looks: bool },
    /// Whether the rest was too short: it ended with a notification.
    Rested { looks: bool },
}

impl Streak {
    /// An attempt was granted.
    pub(crate) fn granted(&mut self) {
        let now = Instant::now();
        match mem::take(&mut self.attempt) {
            Next::GoesOn => {
                self.grants += 1;
                return;
            }
            // The key was free.
            Next::Rests { .. } => self.turns = self.turns.saturating_sub(1),
            Next::Rested { looks } => {
                self.too_soon = 0;
                // After its own release it heard of another one.
                if looks {
                    self.is_not_alone();
                }
            }
            Next::New => {}
        }
        self.alone_since.get_or_insert(now);
        self.began = Some(now);
        self.grants = 1;
    }

    /// An attempt found the key held.
    pub(crate) fn held(&mut self) {
        self.alone_since = Some(Instant::now());
        match self.attempt {
            Next::Rested { .. } => {
                self.too_soon += 1;
                if self.too_soon == TOO_SOON {
                    self.too_soon = 0;
                    self.turns = (self.turns + 1).min(MOST_TURNS);
                }
            }
            Next::Rests { .. } => return self.is_not_alone(),
            Next::GoesOn | Next::New => {}
        }
        self.attempt = Next::New;
    }

    fn is_not_alone(&mut self) {
        self.turns = self.turns.max(1);
        self.alone_since = Some(Instant::now());
    }

    /// A lease was handed over.
    pub(crate) fn handed_off(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        self.grants += 1;
    }

    /// A release is told to the first in line.
    pub(crate) const fn goes_on(&mut self) {
        self.attempt = Next::GoesOn;
    }

    /// Whether it is the turn of others, who are told of a release or not.
    pub(crate) fn is_over(&self, told: bool) -> bool {
        told && self.grants >= GRANTS || self.began.is_some_and(|began| began.elapsed() >= TIME)
    }

    /// The turns of others begin with a release. Until when to rest, unless notifications come; not at all
    /// where nothing would end the rest in time.
    pub(crate) fn rest(&mut self, told: bool, listens: bool) -> Option<Instant> {
        let now = Instant::now();
        let passed = |since: Option<Instant>, time| since.is_none_or(|since| now - since >= time);
        let long = !told || self.alone_since.is_some() && passed(self.alone_since, ALONE);
        if long {
            self.alone_since = Some(now);
        }
        let looks = long || self.turns == 0 && passed(self.looked, LOOK);
        if looks {
            self.looked = Some(now);
        } else if self.turns == 0 && !listens {
            self.attempt = Next::New;
            return None;
        }
        let streak = self.began.map_or(LONGEST_REST, |began| now - began);
        let patience = if long { streak.clamp(REST_TOLD, LONGEST_REST) } else { REST_TOLD };
        let to_come = if looks { self.turns.max(1) } else { self.turns };
        self.attempt = Next::Rests { to_come, patience, looks };
        Some(now + patience)
    }

    /// A notification has come. Until when to rest all the same, if it is still the turn of others.
    pub(crate) fn notificationed(&mut self) -> Option<Instant> {
        match &mut self.attempt {
            Next::Rests { to_come: 0, looks, .. } => self.attempt = Next::Rested { looks: *looks },
            Next::Rests { to_come, patience, .. } => {
                *to_come -= 1;
                return Some(Instant::now() + *patience);
            }
            Next::GoesOn | Next::New | Next::Rested { .. } => {}
        }
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
        (1..grants).for_each(|_| streak.handed_off());
        streak
    }

    /// After a rest that ended with a notification, others were faster.
    fn too_soon(streak: &mut Streak) {
        streak.rest(true, true);
        while streak.notificationed().is_some() {}
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
        let mut handed_off = Streak::default();
        handed_off.handed_off();
        for streak in [&granted, &handed_off] {
            assert!(!streak.is_over(true) && !streak.is_over(false));
        }
        advance(999 * MS).await;
        for streak in [&granted, &handed_off] {
            assert!(!streak.is_over(true) && !streak.is_over(false));
        }
        advance(MS).await;
        for streak in [&granted, &handed_off] {
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
        assert_eq!(Streak::default().rest(true, true), Some(now + REST_TOLD));
        assert_eq!(Streak::default().rest(false, false), Some(now + LONGEST_REST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_lets_as_many_notifications_pass_as_were_learnt() {
        for turns in 1..4 {
            let mut streak = learnt(turns);
            streak.rest(true, true);
            for _ in 0..turns {
                advance(MS).await;
                assert_eq!(streak.notificationed(), Some(Instant::now() + REST_TOLD));
            }
            assert_eq!(streak.notificationed(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn alone_it_rests_until_it_hears_of_its_own_release_or_not_at_all() {
        let mut streak = streak_of(16);
        streak.rest(true, true);
        streak.granted();
        assert_eq!(streak.rest(true, true), Some(Instant::now() + REST_TOLD));
        assert_eq!(streak.notificationed(), None);
        streak.granted();
        assert_eq!(streak.rest(true, false), None, "nothing would end the rest in time");
    }

    #[tokio::test(start_paused = true)]
    async fn alone_it_looks_for_others_now_and_then() {
        let mut streak = streak_of(16);
        for listens in [false, true, false] {
            let rest = streak.rest(true, listens);
            assert_eq!(rest, Some(Instant::now() + REST_TOLD));
            assert_eq!(streak.notificationed(), rest, "its own release does not end it");
            streak.granted();
            assert_eq!(streak.turns, 0);
            advance(LOOK - MS).await;
            assert_eq!(streak.rest(true, false), None, "too early");
            streak.granted();
            advance(MS).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_a_turn_to_others_that_it_finds_so() {
        // One that takes the key during the rest.
        let mut streak = streak_of(16);
        streak.rest(true, false);
        streak.held();
        assert_eq!(streak.turns, 1);
        // One that has released it by then.
        let mut streak = streak_of(16);
        streak.rest(true, true);
        assert!(streak.notificationed().is_some(), "its own");
        assert!(streak.notificationed().is_none());
        streak.granted();
        assert_eq!(streak.turns, 1);
        // They are gone.
        assert!(streak.rest(true, true).is_some() && streak.notificationed().is_some());
        streak.granted();
        assert_eq!(streak.turns, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn alone_for_long_it_makes_room_for_those_who_only_look() {
        let mut streak = streak_of(16);
        streak.rest(true, true);
        streak.granted();
        advance(ALONE - MS).await;
        assert_eq!(streak.rest(true, true), Some(Instant::now() + REST_TOLD));
        streak.granted();
        advance(MS).await;
        for (lasted, rested) in [(MS, REST_TOLD), (20 * MS, 20 * MS), (60 * MS, LONGEST_REST)] {
            advance(lasted).await;
            let rest = streak.rest(true, false);
            assert_eq!((rest, streak.notificationed()), (Some(Instant::now() + rested), rest));
            advance(ALONE).await;
            streak.granted();
        }
        streak.rest(true, false);
        streak.granted();
        advance(ALONE - MS).await;
        assert_eq!(streak.rest(true, false), Some(Instant::now() + REST_TOLD), "not for long");
        // It sees somebody.
        streak.held();
        advance(MS).await;
        assert_eq!(streak.rest(true, false), Some(Instant::now() + REST_TOLD), "not alone");
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
    async fn it_learns_nothing_from_attempts_at_later_notifications() {
        let mut streak = Streak::default();
        for _ in 0..3 {
            too_soon(&mut streak);
            for _ in 0..10 {
                assert_eq!(streak.notificationed(), None);
                streak.held();
            }
        }
        assert_eq!(streak.turns, 0);
        too_soon(&mut streak);
        assert_eq!(streak.turns, 1, "nor do they start the count again");
    }

    #[tokio::test(start_paused = true)]
    async fn it_learns_nothing_from_attempts_that_no_notification_called_for() {
        let mut streak = learnt(1);
        for _ in 0..10 {
            streak.rest(true, true);
            streak.held();
        }
        assert_eq!(streak.turns, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_success_starts_the_count_again() {
        let mut streak = Streak::default();
        (0..3).for_each(|_| too_soon(&mut streak));
        streak.rest(true, true);
        assert_eq!(streak.notificationed(), None);
        streak.granted();
        (0..3).for_each(|_| too_soon(&mut streak));
        assert_eq!(streak.turns, 0);
        too_soon(&mut streak);
        assert_eq!(streak.turns, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_leaves_a_turn_less_when_the_key_was_free_after_its_rest() {
        let mut streak = learnt(3);
        streak.rest(true, true);
        streak.granted();
        assert_eq!(streak.turns, 2, "without a notification");
        streak.rest(true, true);
        assert!(streak.notificationed().is_some() && streak.notificationed().is_some());
        streak.granted();
        assert_eq!(streak.turns, 1, "after those that were to come");
        streak.rest(true, true);
        assert!(streak.notificationed().is_some());
        assert!(streak.notificationed().is_none());
        streak.granted();
        assert_eq!(streak.turns, 1, "all had their turn, and one more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_learns_stays_within_bounds() {
        let mut streak = Streak::default();
        streak.rest(true, true);
        streak.granted();
        assert_eq!(streak.turns, 0);

        let mut streak = learnt(MOST_TURNS);
        (0..TOO_SOON).for_each(|_| too_soon(&mut streak));
        assert_eq!(streak.turns, MOST_TURNS);
    }

    #[tokio::test(start_paused = true)]
    async fn g8_a_rest_that_ended_by_its_time_teaches_nothing_later() {
        let mut streak = Streak::default();
        for _ in 0..TOO_SOON {
            streak.rest(true, true);
            streak.granted();
            streak.goes_on();
            // A race that is lost after a plain release, and another one after a notification.
            streak.held();
            assert!(streak.notificationed().is_none());
            streak.held();
        }
        assert_eq!(streak.turns, 0);
    }
}

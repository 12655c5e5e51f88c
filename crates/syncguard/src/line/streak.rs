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

//! How long the holders of a key may come from this process alone.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// After so many grants in a row, others get their chance, where they are told of it.
const GRANTS: u32 = 16;
/// After this time they get it whether they are told or not.
const TIME: Duration = Duration::from_secs(1);

/// The head start of others when it is their turn: longer than a hint takes, or such that those who
/// only look now and then have a chance to see a free key.
const HEAD_START_TOLD: Duration = Duration::from_millis(5);
const HEAD_START: Duration = Duration::from_millis(50);

/// The grants of one key in a row that never left this process.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    began: Option<Instant>,
    grants: u32,
    /// The next grant goes on with it: the first in line was told of the release before others.
    goes_on: bool,
}

impl Streak {
    /// An attempt was granted.
    pub(crate) fn granted(&mut self) {
        if mem::take(&mut self.goes_on) {
            self.grants += 1;
        } else {
            *self = Self { began: Some(Instant::now()), grants: 1, goes_on: false };
        }
    }

    /// A lease was handed over.
    pub(crate) const fn handed_over(&mut self) {
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

    /// When the others have had their chance, if their turn begins now.
    pub(crate) fn others_until(told: bool) -> Instant {
        Instant::now() + if told { HEAD_START_TOLD } else { HEAD_START }
    }
}

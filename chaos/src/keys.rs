//! The keys of a run: few, so that they are contended.

use serde::{Deserialize, Serialize};

/// The names of the keys. All begin with the same word, so that runs on one server do not meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    run: String,
}

/// Keys that are held for moments, many times a second.
pub(crate) const SHORT: usize = 16;
/// Keys that are held for up to seconds, and kept alive.
pub(crate) const LONG: usize = 3;

impl Keys {
    pub(crate) const fn of(run: String) -> Self {
        Self { run }
    }

    pub(crate) fn short(&self, number: usize) -> String {
        format!("{}:short:{number}", self.run)
    }

    pub(crate) fn long(&self, number: usize) -> String {
        format!("{}:long:{number}", self.run)
    }

    /// Many candidates campaign for this one.
    pub(crate) fn contested(&self) -> String {
        format!("{}:leader:contested", self.run)
    }

    /// One candidate campaigns for this one, and pauses in between, so that it is often vacant.
    pub(crate) fn solo(&self) -> String {
        format!("{}:leader:solo", self.run)
    }

    pub(crate) fn elections(&self) -> [String; 2] {
        [self.contested(), self.solo()]
    }

    pub(crate) fn locks(&self) -> Vec<String> {
        let short = (0..SHORT).map(|number| self.short(number));
        short.chain((0..LONG).map(|number| self.long(number))).collect()
    }
}

/// Whether terms of leaders are won on this key.
pub(crate) fn is_election(key: &str) -> bool {
    key.contains(":leader:")
}

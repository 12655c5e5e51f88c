//! The violations that checks find: each is a clause that the history does not keep.

use std::fmt;

use crate::clock::Moment;

/// A clause that the history does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) kind: Kind,
    pub(crate) at: Moment,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Two verified holders at a time.
    TwoHolders,
    /// A fence that was repeated or went down.
    Fence,
    /// A loss that was signalled after the grant of a successor.
    LateLoss,
    /// The work of a leader that went on after its lease, or after the next leader began.
    LateStop,
    /// A hold of which nobody let go.
    Leak,
    /// An observer that was not told of a vacancy, or told of a lower fence than before.
    Observer,
    /// A late write that was accepted, or a good one that was refused.
    Register,
    /// An error that its cause does not explain.
    Error,
    Panic,
    /// A key that stayed locked, or waiters that stayed queued.
    Stuck,
    /// Locks that did not work again after a fault.
    Recovery,
    /// Too much memory, or too many sockets.
    Resources,
}

impl Violation {
    pub(crate) fn new(kind: Kind, at: Moment, text: impl Into<String>) -> Self {
        Self { kind, at, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}: {}", self.kind, self.at.0, self.text)
    }
}

//! Events for operations, waits and losses, as an observer sees them.

use std::time::Duration;

use syncguard_core::{ErrorCode, Fingerprint, Key, LockId, Operation};

/// What happened in one operation on the backend, or in one wait for a lock.
///
/// - Each operation that reaches the backend is one event, unless its future is dropped.
/// - Each wait ends with one event of [`Operation::Wait`], even if its future is dropped: how long it
///   took, and how many attempts. The outcome of a dropped wait is a failure with
///   [`ErrorCode::Aborted`].
/// - Each campaign ends with one event of [`Operation::Campaign`] in the same way.
/// - Each lease that is lost is one event of [`Operation::Hold`], whose duration is the time from the
///   request to the loss.
#[derive(Clone, Debug)]
pub struct Event {
    pub(crate) operation: Operation,
    pub(crate) outcome: Outcome,
    pub(crate) key: Option<Key>,
    pub(crate) id: Option<LockId>,
    pub(crate) duration: Duration,
    pub(crate) attempts: Option<u32>,
    pub(crate) raw_names: bool,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what was asked.
    Done,
    /// It failed.
    Failed(ErrorCode),
    /// It worked, and the answer is no.
    Refused(Reason),
}

/// Why the answer of an operation is no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The lease had ended by time.
    Expired,
    /// Somebody else holds the key.
    Locked,
    /// No live lease was found.
    NotFound,
}

impl Reason {
    /// The name of the reason, as SyncGuard spells it in every language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Locked => "locked",
            Self::NotFound => "not-found",
        }
    }
}

impl Event {
    /// Which operation it was.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The fingerprint of the key, where the caller had one.
    #[must_use]
    pub fn key(&self) -> Option<Fingerprint> {
        self.key.as_ref().map(Key::fingerprint)
    }

    /// The fingerprint of the lock id, where the caller had one. Of a handoff it is the id of the new
    /// lease; the old one, which ends with it, has no event of its own.
    #[must_use]
    pub fn id(&self) -> Option<Fingerprint> {
        self.id.as_ref().map(LockId::fingerprint)
    }

    /// The key itself, if raw names were asked for.
    #[must_use]
    pub fn raw_key(&self) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.raw_names)
    }

    /// The lock id itself, if raw names were asked for.
    #[must_use]
    pub fn raw_id(&self) -> Option<&LockId> {
        self.id.as_ref().filter(|_| self.raw_names)
    }

    /// How long the operation took.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// How many attempts a wait took: none where it was served from within the process. `None` for
    /// the other operations.
    #[must_use]
    pub const fn attempts(&self) -> Option<u32> {
        self.attempts
    }
}

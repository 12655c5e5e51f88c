//! The operations that errors and events name.

use std::fmt;

/// Names the operation that failed with an [`Error`](crate::Error), or that an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Acquiring a lock: one attempt.
    Acquire,
    /// Campaigning: from the call to the start of a term.
    Campaign,
    /// Configuring a backend: its options and tables.
    Configure,
    /// Connecting to the store for the first time.
    Connect,
    /// Extending a lease.
    Extend,
    /// Looking up a lease by its id.
    Find,
    /// Looking up a lease by its key.
    Get,
    /// Ending a lease and granting its key to the next waiter.
    Handoff,
    /// Holding a lease. The only event of this operation says that the lease was lost.
    Hold,
    /// Leading: one term, from its start to its end.
    Lead,
    /// Reading a fence or a lock id from a text.
    Parse,
    /// Checking the configuration of the store.
    Preflight,
    /// Publishing the name and the value of a leader.
    Publish,
    /// Reading what a leader has published.
    Published,
    /// Releasing a lease.
    Release,
    /// Running a closure while holding a lock.
    Run,
    /// Finishing background work.
    Shutdown,
    /// A key without a leader, from when an observer saw it to the next leader.
    Vacancy,
    /// Waiting for a lock: the time in the queue and all attempts.
    Wait,
    /// Removing what a leader has published.
    Withdraw,
}

impl Operation {
    /// Returns the name of the operation, in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Campaign => "campaign",
            Self::Configure => "configure",
            Self::Connect => "connect",
            Self::Extend => "extend",
            Self::Find => "find",
            Self::Get => "get",
            Self::Handoff => "handoff",
            Self::Hold => "hold",
            Self::Lead => "lead",
            Self::Parse => "parse",
            Self::Preflight => "preflight",
            Self::Publish => "publish",
            Self::Published => "published",
            Self::Release => "release",
            Self::Run => "run",
            Self::Shutdown => "shutdown",
            Self::Vacancy => "vacancy",
            Self::Wait => "wait",
            Self::Withdraw => "withdraw",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

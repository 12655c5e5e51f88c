//! The events of a history, one for each line of its file.

use std::error::Error as _;
use std::iter::successors;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncguard::Error;

use crate::clock::{Moment, micros};

/// Something that happened, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) at: Moment,
    pub(crate) event: Event,
}

/// One event of a worker, of the parent or of the fenced register.
///
/// A *hold* is a number that a worker gives to each guard and to each term. Its claims are the events
/// `Granted` and `Holding`: at `at` or later, the library said that the lease was held and had time
/// left, until `until` at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A worker started, with this seed.
    Started { seed: u64 },
    /// A guard or a term was received. `sent` is a moment before the request that was granted left.
    Granted {
        hold: u64,
        key: String,
        fence: u64,
        /// The fingerprint of the lock id. Empty for a term, which does not tell its id.
        id: String,
        how: How,
        sent: Moment,
        until: Moment,
    },
    /// The hold was verified.
    Holding { hold: u64, until: Moment },
    /// The loss was signalled.
    Lost { hold: u64 },
    /// The holder lets go: from here on it claims nothing. The work of a term has ended.
    LetGo { hold: u64 },
    /// What a release answered.
    Answered { hold: u64, released: bool },
    /// The store has answered the release of a term.
    TermReleased { key: String },
    /// An observer was told who leads.
    Observed { key: String, leader: Leader },
    /// An operation failed.
    Failed { operation: String, code: String, message: String, began: Moment },
    /// The process panicked.
    Panicked { message: String },
    /// The machine did not run the process for this long.
    Stalled { micros: u64 },
    /// A plain client, without the forwarder, waited for this long for the server.
    ServerSlow { micros: u64 },
    /// A worker has ended its work and its background releases.
    Drained { waiters: usize, terms: usize },
    /// A write arrived at the fenced register.
    Write { key: String, fence: u64, accepted: bool },
    /// The parent began to do harm.
    Fault { number: u64, kind: FaultKind, worker: Option<usize> },
    /// The harm is over. The server, if it was away, accepts connections again.
    FaultEnded { number: u64 },
    /// The next part of the run began.
    Phase(Phase),
    /// Resources of a worker.
    Sample { worker: usize, memory_kib: u64, sockets: u64 },
    /// After all workers have ended, this key could be acquired, or not in time.
    Probed { key: String, micros: u64, granted: bool },
}

/// How a hold began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    Acquire,
    TryAcquire,
    Run,
    Adopt,
    Lead,
}

/// Who leads, as an observer was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leader {
    Vacant,
    Led { fence: u64, candidate: Option<String> },
    Unknown,
}

/// The parts of a run, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Before the first fault.
    WarmUp,
    Faults,
    /// After the last fault, with the work going on.
    Calm,
    /// The workers stop.
    Drain,
    End,
}

/// What the parent does to the processes, to the network and to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// SIGKILL to a worker, and a new one in its place.
    WorkerKilled,
    /// SIGSTOP to a worker, for longer than any TTL, then SIGCONT.
    WorkerStopped,
    /// The same, for less than a TTL.
    WorkerHesitates,
    ServerKilled,
    ServerRestarted,
    /// The server is frozen for a while.
    ServerHangs,
    /// All connections are closed. New ones work.
    ConnectionsCut,
    /// All connections are closed, and new ones are closed at once.
    ConnectionsRefused,
    /// What is sent over the open connections disappears. New ones work.
    OpenConnectionsSilent,
    /// Whatever is sent disappears.
    AllSilent,
    RequestsDropped,
    RepliesDropped,
    /// Each direction is delayed.
    Slow,
    ScriptsFlushed,
    SessionsTerminated,
    /// A negative control: the fence counters are deleted.
    CountersDeleted,
}

impl FaultKind {
    /// Whether it can make an operation of any worker fail.
    pub(crate) const fn is_outage(self) -> bool {
        !matches!(self, Self::WorkerKilled | Self::WorkerStopped | Self::WorkerHesitates)
    }
}

impl Event {
    /// An operation that failed, with all causes.
    pub(crate) fn failed(error: &Error, began: Moment) -> Self {
        let causes = successors(error.source(), |cause| (*cause).source());
        let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        let (operation, code) = (error.operation().to_string(), error.code().to_string());
        Self::Failed { operation, code, message, began }
    }

    /// A stall of this length.
    pub(crate) fn stalled(stalled: Duration) -> Self {
        Self::Stalled { micros: micros(stalled) }
    }

    pub(crate) fn server_slow(waited: Duration) -> Self {
        Self::ServerSlow { micros: micros(waited) }
    }

    pub(crate) fn probed(key: String, waited: Duration, granted: bool) -> Self {
        Self::Probed { key, micros: micros(waited), granted }
    }
}

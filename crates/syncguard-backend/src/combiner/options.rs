//! How operations share requests, and how long they wait.

use std::time::Duration;

#[cfg(doc)]
use super::requests::Requests;

/// How operations share requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a backend names both")]
pub struct GroupCommit {
    /// How many requests are under way at a time. A value of 0 counts as 1.
    pub lanes: usize,
    /// How many operations one request has at most. A value of 0 counts as 1.
    pub cap: usize,
}

/// Times that decide how long an operation waits if a task sends it. One that its caller sends has only the
/// limit of [`Requests::send_alone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a backend names all of them")]
pub struct TimeLimits {
    /// Decides whether an operation waits although a lane is free. It does if a recent request took less time
    /// than this, and there are more callers than lanes. It then shares the next request. Zero turns this off.
    pub short_request: Duration,
    /// Until it is sent.
    pub unsent: Duration,
    /// After that, until it is answered, if it was sent in time.
    pub unanswered: Duration,
}

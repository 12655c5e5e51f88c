//! Group commit: operations that arrive while a request is under way share the next one.

mod caller_lane;
mod callers;
mod lane;
mod options;
mod pace;
mod requests;
mod shared;

use std::fmt;
use std::sync::Arc;

use syncguard_core::{Result, Sent};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use self::caller_lane::{Begun, begin};
use self::callers::Callers;
use self::lane::send_if_overdue;
pub use self::options::{GroupCommit, TimeLimits};
use self::pace::OVERDUE;
pub use self::requests::Requests;
use self::shared::{Shared, Waiting};

/// Sends operations to a server. An operation that finds a free lane goes out at once and alone. The others
/// wait, and the next request takes all of them.
///
/// If there are more callers than lanes and requests are short, an operation also waits if a lane is free: until
/// a request under way ends, is overdue, or enough operations wait to fill the next one. Right after an answer
/// to several callers, the next request waits until these have run. No request waits for a timer otherwise.
///
/// An operation that waits is dropped with its caller. One that was sent in a request with others runs to its
/// end, whoever leaves.
///
/// # Cancel safety
///
/// See [`run`](Self::run).
pub struct Combiner<R: Requests>(Arc<Shared<R>>);

impl<R: Requests> Combiner<R> {
    /// Combines operations into few requests.
    pub fn new(requests: R, group_commit: GroupCommit, limits: TimeLimits) -> Self {
        Self::with(requests, group_commit, limits, Callers::default())
    }

    /// Combines requests of another kind, with lanes of their own. Callers that were answered together by
    /// one of the two combiners often go on with the other at once, and then share requests there as well.
    #[must_use]
    pub fn beside<S: Requests>(&self, requests: S) -> Combiner<S> {
        let Shared { lanes, cap, limits, ref callers, .. } = *self.0;
        Combiner::with(requests, GroupCommit { lanes, cap }, limits, callers.clone())
    }

    fn with(requests: R, group_commit: GroupCommit, limits: TimeLimits, callers: Callers) -> Self {
        Self(Arc::new(Shared::new(requests, group_commit, limits, callers)))
    }

    /// Returns what sends the requests.
    #[must_use]
    pub fn requests(&self) -> &R {
        &self.0.requests
    }

    /// Runs an operation, and marks `sent` when it leaves the process. It must be called inside a
    /// tokio runtime whose timer is enabled.
    ///
    /// # Errors
    ///
    /// As [`Requests::connect`] and [`Requests::send`] fail, and [`Requests::unsent`] or
    /// [`Requests::unanswered`] after the [`TimeLimits`].
    ///
    /// # Cancel safety
    ///
    /// While `sent` is unmarked, dropping the future drops the operation. Later the operation may be
    /// carried out or not. Dropping the future never affects other operations.
    pub async fn run(&self, operation: R::Operation, sent: &Sent) -> Result<R::Answer> {
        let shared = &self.0;
        let (lane, operation) = match begin(shared, operation, sent) {
            Begun::First(lane, operation) => (lane, operation),
            Begun::Waiting(waiting) => return self.answer(waiting).await,
        };
        let Some(connection) = shared.requests.connection_at_hand() else {
            // A task waits for the connection, because this caller may leave before it is there.
            let waiting = shared.lock().enqueue(shared, &Handle::current(), operation, sent);
            drop(lane);
            return self.answer(waiting).await;
        };
        sent.mark();
        let answer = shared.requests.send_alone(connection, operation).await;
        if answer.is_ok() {
            lane.end();
        }
        answer
    }

    /// Waits for the answer to an operation that a task sends, within the time limits.
    async fn answer(&self, mut waiting: Waiting<R>) -> Result<R::Answer> {
        let Shared { requests, limits, .. } = &*self.0;
        let begun = Instant::now();
        let mut pause = OVERDUE;
        // The request whose end it waits for may be lost.
        while pause < limits.unsent {
            if let Ok(answer) = timeout_at(begun + pause, &mut waiting).await {
                return answer;
            }
            send_if_overdue(&self.0);
            pause *= 2;
        }
        match timeout_at(begun + limits.unsent, &mut waiting).await {
            Ok(answer) => answer,
            Err(_) if waiting.withdraw() => Err(requests.unsent()),
            Err(_) => {
                let answer = timeout(limits.unanswered, waiting).await;
                answer.unwrap_or_else(|_| Err(requests.unanswered()))
            }
        }
    }
}

impl<R: Requests> Clone for Combiner<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: Requests> fmt::Debug for Combiner<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combiner")
            .field("lanes", &self.0.lanes)
            .field("cap", &self.0.cap)
            .finish_non_exhaustive()
    }
}

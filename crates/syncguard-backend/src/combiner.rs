//! Group commit: operations that arrive while a request is under way share the next one.

mod lane;
mod options;
mod requests;
mod shared;
mod wave;

use std::fmt;
use std::sync::Arc;

use syncguard_core::{Result, Sent};
use tokio::runtime::Handle;
use tokio::time::timeout;

use self::lane::{Begun, begin};
pub use self::options::{GroupCommit, TimeLimits};
pub use self::requests::Requests;
use self::shared::{Shared, Waiting};
use self::wave::Waves;

/// Sends operations to a server. While few requests are under way, each operation goes out at once and
/// alone. The others wait, and the next request takes all of them.
///
/// No timer delays a request: an operation waits for a request that is under way, or, right after an answer
/// to several callers, until these have run. An operation that waits is dropped with its caller. An operation
/// that was sent in a request with others runs to its end, whoever leaves.
///
/// # Cancel safety
///
/// See [`run`](Self::run).
pub struct Combiner<R: Requests>(Arc<Shared<R>>);

impl<R: Requests> Combiner<R> {
    /// Combines operations into few requests.
    pub fn new(requests: R, group_commit: GroupCommit, limits: TimeLimits) -> Self {
        Self::with(requests, group_commit, limits, Waves::default())
    }

    /// Combines requests of another kind, with lanes of their own. Callers that were answered together by
    /// one of the two combiners often go on with the other at once, and then share requests there as well.
    #[must_use]
    pub fn beside<S: Requests>(&self, requests: S) -> Combiner<S> {
        let Shared { lanes, cap, limits, ref waves, .. } = *self.0;
        Combiner::with(requests, GroupCommit { lanes, cap }, limits, waves.clone())
    }

    fn with(requests: R, group_commit: GroupCommit, limits: TimeLimits, waves: Waves) -> Self {
        Self(Arc::new(Shared::new(requests, group_commit, limits, waves)))
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
        let (turn, operation) = match begin(shared, operation, sent) {
            Begun::First(turn, operation) => (turn, operation),
            Begun::Waiting(waiting) => return self.answer(waiting).await,
        };
        let Some(connection) = shared.requests.connection_at_hand() else {
            // A task waits for the connection, because this caller may leave before it is there.
            let waiting = shared.lock().enqueue(shared, &Handle::current(), operation, sent);
            drop(turn);
            return self.answer(waiting).await;
        };
        sent.mark();
        let answer = shared.requests.send_alone(connection, operation).await;
        drop(turn);
        answer
    }

    /// Waits for the answer to an operation that a task sends, within the time limits.
    async fn answer(&self, mut waiting: Waiting<R>) -> Result<R::Answer> {
        let Shared { requests, limits, .. } = &*self.0;
        match timeout(limits.unsent, &mut waiting).await {
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

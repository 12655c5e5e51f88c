//! Who sends requests: a caller its own operation, or a task those that wait.

use std::sync::Arc;

use syncguard_core::Sent;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::requests::Requests;
use super::shared::{Batch, Shared, Waiting};

/// How an operation begins.
pub(super) enum Begun<R: Requests> {
    /// With a lane of its own.
    First(Turn<R>, R::Operation),
    Waiting(Waiting<R>),
}

/// Takes a free lane for the operation, or lets it wait.
pub(super) fn begin<R: Requests>(
    shared: &Arc<Shared<R>>,
    operation: R::Operation,
    sent: &Sent,
) -> Begun<R> {
    let now = Instant::now();
    let mut state = shared.lock();
    if state.busy >= shared.lanes {
        state.reclaim(now);
    }
    // Under one mutex with the check, or the last lane could end in between and serve nobody.
    if state.busy >= shared.lanes {
        return Begun::Waiting(state.enqueue(shared, operation, sent));
    }
    state.busy += 1;
    let number = state.number();
    state.turns.insert(number, now);
    drop(state);
    let lane = Lane { shared: shared.clone(), home: Handle::current() };
    Begun::First(Turn { lane: Some(lane), number }, operation)
}

/// The right to have a request under way.
pub(super) struct Lane<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
}

impl<R: Requests> Lane<R> {
    /// Gives the lane back if nobody waits.
    fn unless_idle(self) -> Option<InTask<R>> {
        let mut state = self.shared.lock();
        if state.queue.is_empty() {
            state.busy -= 1;
            return None;
        }
        drop(state);
        Some(InTask(Some(self)))
    }
}

/// The lane of a caller that sends its own operation. When this is dropped, a task sends what waits.
pub(super) struct Turn<R: Requests> {
    lane: Option<Lane<R>>,
    number: u64,
}

impl<R: Requests> Drop for Turn<R> {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        // Unless the lane was reclaimed.
        if lane.shared.lock().turns.remove(&self.number).is_some() {
            let home = lane.home.clone();
            if let Some(lane) = lane.unless_idle() {
                // Nobody needs the handle of the task: its operations have their own replies.
                drop(home.spawn(lane.serve()));
            }
        }
    }
}

/// The lane of a task. If the task is dropped, because its runtime ends, those that wait get an error:
/// they may be on other runtimes, and must not wait for ever.
struct InTask<R: Requests>(Option<Lane<R>>);

impl<R: Requests> InTask<R> {
    /// Sends what waits, until nothing does.
    async fn serve(mut self) {
        while let Some(lane) = &self.0 {
            let shared = &lane.shared;
            let first_later = shared.next_number();
            let connected = match shared.requests.connection_at_hand() {
                Some(connection) => Ok(connection),
                None => shared.requests.connect().await,
            };
            match connected {
                Ok(connection) => {
                    let Batch { operations, replies } = shared.take();
                    // All callers may have left while there was no connection.
                    if !operations.is_empty() {
                        let answers = shared.requests.send(connection, operations).await;
                        for (reply, answer) in replies.into_iter().zip(answers) {
                            let _ = reply.send(answer);
                        }
                    }
                }
                Err(error) => shared.fail_before(first_later, &error),
            }
            self = match self.0.take().and_then(Lane::unless_idle) {
                Some(lane) => lane,
                None => return,
            };
        }
    }
}

impl<R: Requests> Drop for InTask<R> {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.shared.lock().busy -= 1;
            lane.shared.fail_before(u64::MAX, &lane.shared.requests.abandoned());
        }
    }
}

//! The lane of a caller, which sends its own operation.

use std::sync::Arc;

use syncguard_core::Sent;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::callers::Caller;
use super::lane::{NextTask, start_next};
use super::requests::Requests;
use super::shared::{Shared, Waiting};

/// How an operation begins.
pub(super) enum Begun<R: Requests> {
    /// With a lane of its own.
    First(CallerLane<R>, R::Operation),
    Waiting(Waiting<R>),
}

/// Takes a free lane for the operation, or lets it wait.
pub(super) fn begin<R: Requests>(
    shared: &Arc<Shared<R>>,
    operation: R::Operation,
    sent: &Sent,
) -> Begun<R> {
    let home = Handle::current();
    let now = Instant::now();
    let mut state = shared.lock();
    if state.busy >= shared.lanes {
        state.reclaim(now);
    }
    // Under one mutex with the check, or the last lane could end in between and serve nobody.
    if !state.may_begin(shared, now, 1) || state.is_gathering(now, home.id()) {
        return Begun::Waiting(state.enqueue(shared, &home, operation, sent));
    }
    // Others were waiting until now. They go first, and this one with them.
    if !state.queue.is_empty() {
        let waiting = state.enqueue(shared, &home, operation, sent);
        start_next(shared, Some(&home), state);
        return Begun::Waiting(waiting);
    }
    // Callers were just answered together. More of them may be about to come.
    if shared.callers.any_wave(now) {
        let waiting = state.enqueue(shared, &home, operation, sent);
        let task = NextTask::gathering(shared, home, &mut state, None);
        drop(state);
        task.start();
        return Begun::Waiting(waiting);
    }
    let number = state.take_lane(now);
    state.pace.begin(now);
    drop(state);
    let (shared, caller) = (shared.clone(), Some(shared.callers.enter()));
    let lane = CallerLane { shared, home, number, caller, begun: now, answered: false };
    Begun::First(lane, operation)
}

/// When this is dropped, a task sends what waits.
pub(super) struct CallerLane<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    number: u64,
    caller: Option<Caller>,
    begun: Instant,
    answered: bool,
}

impl<R: Requests> CallerLane<R> {
    /// Gives it back after an answer.
    pub(super) fn end(mut self) {
        self.answered = true;
    }
}

impl<R: Requests> Drop for CallerLane<R> {
    fn drop(&mut self) {
        // Those that wait need not count on this caller.
        self.caller = None;
        let mut state = self.shared.lock();
        state.end(self.number);
        state.pace.end(self.begun, self.answered);
        start_next(&self.shared, Some(&self.home), state);
    }
}

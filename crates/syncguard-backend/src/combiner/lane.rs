//! The lane of a task, which sends the operations that wait.

use std::sync::{Arc, MutexGuard};

use syncguard_core::Result;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::callers::Wave;
use super::requests::Requests;
use super::shared::{Batch, Reply, Shared, State};
use crate::stealable::spawn_stealable;

/// Starts a task that sends what waits, if an operation waits and a request may begin.
pub(super) fn start_next<R: Requests>(
    shared: &Arc<Shared<R>>,
    current: Option<&Handle>,
    mut state: MutexGuard<'_, State<R>>,
) {
    let next = NextTask::with_lane(shared, current, &mut state);
    // The runtime may drop the task at once, and that takes the lock.
    drop(state);
    if let Some(next) = next {
        next.start();
    }
}

/// Sends what waits if all requests under way are overdue.
pub(super) fn send_if_overdue<R: Requests>(shared: &Arc<Shared<R>>) {
    let state = shared.lock();
    if state.pace.is_overdue(Instant::now()) {
        start_next(shared, Some(&Handle::current()), state);
    }
}

/// A task that is about to send what waits.
///
/// It may not run for long, or never, if its runtime is not driven any more. So it counts only for a while:
/// others then take the lane that it has, or no longer leave their operations to it.
pub(super) struct NextTask<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    number: u64,
    /// The one that it follows.
    _wave: Option<Wave>,
    begun: bool,
}

impl<R: Requests> NextTask<R> {
    /// Returns a task that has a lane, if one is free and an operation waits. `current` is the runtime of the
    /// caller, unless it has ended.
    fn with_lane(
        shared: &Arc<Shared<R>>,
        current: Option<&Handle>,
        state: &mut State<R>,
    ) -> Option<Self> {
        let now = Instant::now();
        if !state.may_begin(shared, now, 0) {
            return None;
        }
        let home = state.task_home(current)?;
        let number = state.task_with_lane(now, home.id());
        Some(Self { shared: shared.clone(), home, number, _wave: None, begun: false })
    }

    /// Returns a task that the runtime runs after the callers that are ready now. It then sends what they
    /// want, if a lane is free.
    pub(super) fn gathering(
        shared: &Arc<Shared<R>>,
        home: Handle,
        state: &mut State<R>,
        wave: Option<Wave>,
    ) -> Self {
        let number = state.gathering_task(Instant::now(), home.id());
        Self { shared: shared.clone(), home, number, _wave: wave, begun: false }
    }

    pub(super) fn start(self) {
        let home = self.home.clone();
        // Nobody needs the handle of the task: its operations have their own replies.
        drop(spawn_stealable(&home, async move {
            if let Some(lane) = self.begin() {
                lane.serve().await;
            }
        }));
    }

    /// Takes a lane if an operation still waits.
    fn begin(mut self) -> Option<Lane<R>> {
        self.begun = true;
        let mut state = self.shared.lock();
        state.end(self.number);
        // If no request may begin, a lane is in use, and the next request follows there.
        let needed = !state.queue.is_empty() && state.may_begin(&self.shared, Instant::now(), 0);
        needed.then(|| {
            state.busy += 1;
            let (shared, home) = (self.shared.clone(), self.home.clone());
            Lane { shared, home, held: true, begun: None, answered: false }
        })
    }
}

impl<R: Requests> Drop for NextTask<R> {
    fn drop(&mut self) {
        if !self.begun {
            self.shared.lock().end(self.number);
            go_on_elsewhere(&self.shared, &self.home);
        }
    }
}

/// The lane of a task.
struct Lane<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    held: bool,
    /// When the request began that is under way.
    begun: Option<Instant>,
    answered: bool,
}

impl<R: Requests> Lane<R> {
    /// Sends what waits, until nothing does.
    async fn serve(mut self) {
        let shared = self.shared.clone();
        while self.held {
            let first_later = shared.next_number();
            let connected = match shared.requests.connection_at_hand() {
                Some(connection) => Ok(connection),
                None => shared.requests.connect().await,
            };
            match connected {
                Ok(connection) => {
                    let Batch { operations, replies, begun } = shared.take();
                    // All callers may have left while there was no connection.
                    if operations.is_empty() {
                        self.go_on();
                    } else {
                        self.begun = Some(begun);
                        // Operations may be left that can use another lane.
                        start_next(&shared, Some(&self.home), shared.lock());
                        let answers = send(&shared.requests, connection, operations).await;
                        self.answered = answers.iter().any(Result::is_ok);
                        self.answer(replies, answers);
                    }
                }
                Err(error) => {
                    shared.fail(&error, |number, _| number < first_later);
                    self.go_on();
                }
            }
        }
    }

    /// Answers a request. Callers often have more to do at once, so the next request waits until they have
    /// run. Otherwise each would take a free lane alone, or wait for a whole request. One that was alone
    /// can send what follows itself.
    fn answer(&mut self, replies: Vec<Reply<R>>, answers: Vec<Result<R::Answer>>) {
        let gathering = (replies.len() > 1).then(|| self.gather());
        for (reply, answer) in replies.into_iter().zip(answers) {
            // The caller may have left.
            let _ = reply.send(answer);
        }
        match gathering {
            Some(gathering) => gathering.start(),
            None => self.go_on(),
        }
    }

    /// Gives the lane back. For a moment, those that come leave it to a task to send them.
    fn gather(&mut self) -> NextTask<R> {
        let shared = self.shared.clone();
        let wave = shared.callers.begin_wave();
        let mut state = shared.lock();
        self.give_back(&mut state);
        let home = state.task_home(Some(&self.home)).unwrap_or_else(|| self.home.clone());
        NextTask::gathering(&shared, home, &mut state, Some(wave))
    }

    /// Goes on with the lane if an operation waits and a request may begin, and gives it back otherwise.
    fn go_on(&mut self) {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        self.give_back(&mut state);
        if !state.queue.is_empty() && state.may_begin(&shared, Instant::now(), 0) {
            state.busy += 1;
            self.held = true;
        }
    }

    fn give_back(&mut self, state: &mut State<R>) {
        self.held = false;
        state.busy -= 1;
        if let Some(begun) = self.begun.take() {
            state.pace.end(begun, std::mem::take(&mut self.answered));
        }
    }
}

async fn send<R: Requests>(
    requests: &R,
    connection: R::Connection,
    mut operations: Vec<R::Operation>,
) -> Vec<Result<R::Answer>> {
    if operations.len() == 1
        && let Some(operation) = operations.pop()
    {
        return vec![requests.send_alone(connection, operation).await];
    }
    requests.send(connection, operations).await
}

impl<R: Requests> Drop for Lane<R> {
    fn drop(&mut self) {
        if self.held {
            let shared = self.shared.clone();
            self.give_back(&mut shared.lock());
            go_on_elsewhere(&shared, &self.home);
        }
    }
}

/// A task was dropped, because its runtime ended. Operations of that runtime fail. Those of others do not,
/// and a task on another runtime sends them.
fn go_on_elsewhere<R: Requests>(shared: &Arc<Shared<R>>, ended: &Handle) {
    shared.fail(&shared.requests.abandoned(), |_, queued| queued.home.id() == ended.id());
    start_next(shared, None, shared.lock());
}

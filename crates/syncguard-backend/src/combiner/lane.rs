//! Who sends a request: a caller sends its own operation, or a task sends those that wait.

use std::sync::Arc;

use syncguard_core::{Result, Sent};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::requests::Requests;
use super::shared::{Batch, Reply, Shared, State, Waiting};
use super::wave::Wave;
use crate::stealable::spawn_stealable;

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
    let home = Handle::current();
    let now = Instant::now();
    let mut state = shared.lock();
    if state.busy >= shared.lanes {
        state.reclaim(now);
    }
    // Under one mutex with the check, or the last lane could end in between and serve nobody.
    if state.busy >= shared.lanes || state.is_gathering(now, home.id()) {
        return Begun::Waiting(state.enqueue(shared, &home, operation, sent));
    }
    // Callers were just answered together. More of them may be about to come.
    if shared.waves.any(now) {
        let waiting = state.enqueue(shared, &home, operation, sent);
        let task = NextTask::gathering(shared, home, &mut state, None);
        drop(state);
        task.start();
        return Begun::Waiting(waiting);
    }
    let number = state.begin_turn(now);
    drop(state);
    Begun::First(Turn { shared: shared.clone(), home, number }, operation)
}

/// The lane of a caller that sends its own operation. When this is dropped, a task sends what waits.
pub(super) struct Turn<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    number: u64,
}

impl<R: Requests> Drop for Turn<R> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.end(self.number);
        let next = NextTask::with_lane(&self.shared, Some(&self.home), &mut state);
        drop(state);
        next.into_iter().for_each(NextTask::start);
    }
}

/// A task that is about to send what waits.
///
/// It may not run for long, or never, if its runtime is not driven any more. So it counts only for a while:
/// others then take the lane that it has, or no longer leave their operations to it.
struct NextTask<R: Requests> {
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
        if state.busy >= shared.lanes {
            return None;
        }
        let home = state.task_home(current)?;
        let number = state.task_with_lane(Instant::now(), home.id());
        Some(Self { shared: shared.clone(), home, number, _wave: None, begun: false })
    }

    /// Returns a task that the runtime runs after the callers that are ready now. It then sends what they
    /// want, if a lane is free.
    fn gathering(
        shared: &Arc<Shared<R>>,
        home: Handle,
        state: &mut State<R>,
        wave: Option<Wave>,
    ) -> Self {
        let number = state.gathering_task(Instant::now(), home.id());
        Self { shared: shared.clone(), home, number, _wave: wave, begun: false }
    }

    fn start(self) {
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
        let needed = state.busy < self.shared.lanes && !state.queue.is_empty();
        needed.then(|| {
            state.busy += 1;
            Lane { shared: self.shared.clone(), home: self.home.clone(), held: true }
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
                    let Batch { operations, replies } = shared.take();
                    // More than one request takes.
                    let more = NextTask::with_lane(&shared, Some(&self.home), &mut shared.lock());
                    more.into_iter().for_each(NextTask::start);
                    // All callers may have left while there was no connection.
                    if operations.is_empty() {
                        self.go_on();
                    } else {
                        let answers = send(&shared.requests, connection, operations).await;
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
        let wave = shared.waves.begin();
        let mut state = shared.lock();
        self.give_back(&mut state);
        let home = state.task_home(Some(&self.home)).unwrap_or_else(|| self.home.clone());
        NextTask::gathering(&shared, home, &mut state, Some(wave))
    }

    /// Goes on with the lane if an operation waits, and gives it back otherwise.
    fn go_on(&mut self) {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        if state.queue.is_empty() {
            self.give_back(&mut state);
        }
    }

    const fn give_back(&mut self, state: &mut State<R>) {
        self.held = false;
        state.busy -= 1;
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
    let next = NextTask::with_lane(shared, None, &mut shared.lock());
    next.into_iter().for_each(NextTask::start);
}

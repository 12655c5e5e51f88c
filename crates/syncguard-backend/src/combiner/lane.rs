//! Who sends requests: a caller its own operation, or a task those that wait.

use std::future::Future;
use std::pin::Pin;
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
        return Begun::Waiting(state.enqueue(shared, operation, sent));
    }
    // Callers were just answered together. More of them may be about to come.
    if shared.waves.any(now) {
        let waiting = state.enqueue(shared, operation, sent);
        let gathering = Gathering::new(shared, &home, &mut state, None);
        drop(state);
        gathering.start();
        return Begun::Waiting(waiting);
    }
    state.busy += 1;
    let number = state.number();
    state.turns.insert(number, now);
    drop(state);
    Begun::First(Turn { lane: Some(Lane { shared: shared.clone(), home }), number }, operation)
}

/// The right to have a request under way.
pub(super) struct Lane<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
}

impl<R: Requests> Lane<R> {
    /// A free lane, if somebody waits for one.
    fn free(shared: &Arc<Shared<R>>, home: &Handle, state: &mut State<R>) -> Option<InTask<R>> {
        let free = !state.queue.is_empty() && state.busy < shared.lanes;
        free.then(|| {
            state.busy += 1;
            InTask(Some(Self { shared: shared.clone(), home: home.clone() }))
        })
    }

    /// Gives the lane back. For a moment, those that come leave it to a task to send them.
    fn gather(self) -> Gathering<R> {
        let wave = self.shared.waves.begin();
        let mut state = self.shared.lock();
        state.busy -= 1;
        Gathering::new(&self.shared, &self.home, &mut state, Some(wave))
    }

    /// Gives the lane back if nobody waits.
    fn unless_idle(self) -> Option<InTask<R>> {
        let mut state = self.shared.lock();
        state.busy -= 1;
        Self::free(&self.shared, &self.home, &mut state)
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
        let mut state = lane.shared.lock();
        // Unless the lane was reclaimed.
        if state.turns.remove(&self.number).is_some() {
            state.busy -= 1;
        }
        let next = Lane::free(&lane.shared, &lane.home, &mut state);
        drop(state);
        next.into_iter().for_each(InTask::start);
    }
}

/// The lane of a task. If the task is dropped, because its runtime ends, those that wait get an error:
/// they may be on other runtimes, and must not wait for ever.
struct InTask<R: Requests>(Option<Lane<R>>);

impl<R: Requests> InTask<R> {
    fn start(self) {
        if let Some(home) = self.0.as_ref().map(|lane| lane.home.clone()) {
            // Nobody needs the handle of the task: its operations have their own replies.
            drop(spawn_stealable(&home, self.serve()));
        }
    }

    /// Sends what waits, until nothing does. Boxed, because it may start another one.
    fn serve(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run())
    }

    async fn run(mut self) {
        while let Some(lane) = &self.0 {
            let shared = &lane.shared;
            let first_later = shared.next_number();
            let connected = match shared.requests.connection_at_hand() {
                Some(connection) => Ok(connection),
                None => shared.requests.connect().await,
            };
            let next = match connected {
                Ok(connection) => {
                    let Batch { operations, replies } = shared.take();
                    // More than one request takes.
                    let more = Lane::free(shared, &lane.home, &mut shared.lock());
                    more.into_iter().for_each(Self::start);
                    // All callers may have left while there was no connection.
                    if operations.is_empty() {
                        self.0.take().and_then(Lane::unless_idle)
                    } else {
                        let answers = shared.requests.send(connection, operations).await;
                        self.answer(replies, answers)
                    }
                }
                Err(error) => {
                    shared.fail_before(first_later, &error);
                    self.0.take().and_then(Lane::unless_idle)
                }
            };
            let Some(next) = next else { return };
            self = next;
        }
    }

    /// Answers a request. Callers often have more to do at once, so the next request waits until they have
    /// run. Otherwise each would take a free lane alone, or wait for a whole request. One that was alone
    /// can send what follows itself.
    fn answer(&mut self, replies: Vec<Reply<R>>, answers: Vec<Result<R::Answer>>) -> Option<Self> {
        let several = replies.len() > 1;
        let (lane, gathering) = match self.0.take() {
            Some(lane) if several => (None, Some(lane.gather())),
            lane => (lane, None),
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            // The caller may have left.
            let _ = reply.send(answer);
        }
        gathering.into_iter().for_each(Gathering::start);
        lane.and_then(Lane::unless_idle)
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

/// A task that the runtime runs after the callers that are ready now. It then sends what they want. Until
/// it runs it has no lane, because its runtime may not be driven any more.
struct Gathering<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    number: u64,
    /// The one that it follows.
    _wave: Option<Wave>,
    ended: bool,
}

impl<R: Requests> Gathering<R> {
    fn new(
        shared: &Arc<Shared<R>>,
        home: &Handle,
        state: &mut State<R>,
        wave: Option<Wave>,
    ) -> Self {
        let number = state.gather(Instant::now(), home.id());
        Self { shared: shared.clone(), home: home.clone(), number, _wave: wave, ended: false }
    }

    fn start(self) {
        let home = self.home.clone();
        // Nobody needs the handle of the task: its operations have their own replies.
        drop(spawn_stealable(&home, async move {
            if let Some(lane) = self.end() {
                lane.serve().await;
            }
        }));
    }

    /// Takes a lane if somebody waits by now.
    fn end(mut self) -> Option<InTask<R>> {
        self.ended = true;
        let mut state = self.shared.lock();
        state.gatherings.remove(&self.number);
        Lane::free(&self.shared, &self.home, &mut state)
    }
}

impl<R: Requests> Drop for Gathering<R> {
    /// If the task is dropped, because its runtime ends, and there is no other lane, those that wait get
    /// an error.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.shared.lock();
        state.gatherings.remove(&self.number);
        let alone = state.gatherings.is_empty() && state.busy == 0;
        drop(state);
        if alone {
            self.shared.fail_before(u64::MAX, &self.shared.requests.abandoned());
        }
    }
}

//! Who sends requests: a caller its own operation, or a task those that wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use syncguard_core::{Result, Sent};
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::requests::Requests;
use super::shared::{Batch, Reply, Shared, Waiting};

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
    if state.busy >= shared.lanes || state.is_gathering(now) {
        return Begun::Waiting(state.enqueue(shared, operation, sent));
    }
    // Those that were answered with this caller are about to come as well.
    if shared.waves.any(now) {
        state.gather(now);
        let waiting = state.enqueue(shared, operation, sent);
        drop(state);
        let home = Handle::current();
        let gathering = Gathering { shared: shared.clone(), home: home.clone(), ended: false };
        // Nobody needs the handle of the task: its operations have their own replies.
        drop(home.spawn(gathering.run()));
        return Begun::Waiting(waiting);
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
    /// A free lane, if somebody waits for one.
    fn free(shared: &Arc<Shared<R>>, home: &Handle) -> Option<InTask<R>> {
        let mut state = shared.lock();
        let free = !state.queue.is_empty() && state.busy < shared.lanes;
        free.then(|| {
            state.busy += 1;
            InTask(Some(Self { shared: shared.clone(), home: home.clone() }))
        })
    }

    /// Gives the lane back. For a moment, those that come leave it to this task to send them.
    fn gather(self) -> Gathering<R> {
        let mut state = self.shared.lock();
        state.busy -= 1;
        state.gather(Instant::now());
        drop(state);
        Gathering { shared: self.shared, home: self.home, ended: false }
    }

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
                    if let Some(other) = Lane::free(shared, &lane.home) {
                        drop(lane.home.spawn(other.serve()));
                    }
                    // All callers may have left while there was no connection.
                    if operations.is_empty() {
                        self.0.take().and_then(Lane::unless_idle)
                    } else {
                        let answers = shared.requests.send(connection, operations).await;
                        self.answer(replies, answers).await
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
    async fn answer(
        &mut self,
        replies: Vec<Reply<R>>,
        answers: Vec<Result<R::Answer>>,
    ) -> Option<Self> {
        let several = replies.len() > 1;
        let (lane, gathering) = match self.0.take() {
            Some(lane) if several => {
                let wave = lane.shared.waves.begin();
                (None, Some((lane.gather(), wave)))
            }
            lane => (lane, None),
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            // The caller may have left.
            let _ = reply.send(answer);
        }
        if let Some((gathering, _wave)) = gathering {
            return gathering.end().await;
        }
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

/// A task that lets callers run before it sends what they want. It has no lane, because its runtime may
/// not be driven any more.
struct Gathering<R: Requests> {
    shared: Arc<Shared<R>>,
    home: Handle,
    ended: bool,
}

impl<R: Requests> Gathering<R> {
    /// Sends what waits then, until nothing does.
    async fn run(self) {
        if let Some(lane) = self.end().await {
            lane.serve().await;
        }
    }

    /// Takes a lane if somebody waits then.
    async fn end(mut self) -> Option<InTask<R>> {
        yield_now().await;
        self.ended = true;
        self.shared.lock().gathering -= 1;
        Lane::free(&self.shared, &self.home)
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
        state.gathering -= 1;
        let alone = state.gathering == 0 && state.busy == 0;
        drop(state);
        if alone {
            self.shared.fail_before(u64::MAX, &self.shared.requests.abandoned());
        }
    }
}

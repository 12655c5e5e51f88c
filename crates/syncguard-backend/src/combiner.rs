//! Group commit: operations that arrive while a request is under way share the next one.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_core::{Error, Result, Sent};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The requests that a [`Combiner`] sends to a server.
pub trait Requests: Send + Sync + Sized + 'static {
    /// What one caller wants.
    type Operation: Send + 'static;
    /// The answer to one operation.
    type Answer: Send + 'static;
    /// A connection, or the permission to use a shared one.
    type Connection: Send + 'static;

    /// Returns a connection that can be used at once, if there is one.
    fn connection_at_hand(&self) -> Option<Self::Connection>;

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// If there is none in time. All operations that wait then fail with this error.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Sends the operation of a caller that found a free lane. It must end within a time limit.
    fn send_alone(
        &self,
        connection: Self::Connection,
        operation: Self::Operation,
    ) -> impl Future<Output = Result<Self::Answer>> + Send {
        async {
            let mut answers = self.send(connection, vec![operation]).await;
            answers.pop().unwrap_or_else(|| Err(self.abandoned()))
        }
    }

    /// Sends operations that waited, which may be a single one, in one request, and returns their
    /// answers in the same order. It must end within a time limit, and should not wait for other
    /// clients: the lane is not free until it ends.
    fn send(
        &self,
        connection: Self::Connection,
        operations: Vec<Self::Operation>,
    ) -> impl Future<Output = Vec<Result<Self::Answer>>> + Send;

    /// The error for an operation whose runtime ended before the answer came.
    fn abandoned(&self) -> Error;
}

/// Sends operations to a server. While few requests are under way, each operation goes out at once and
/// alone. The others wait, and the next request takes all of them.
///
/// There is no timer: an operation waits only for a request that is under way. An operation that waits
/// is dropped with its caller. An operation that was sent in a request with others runs to its end,
/// whoever leaves.
///
/// # Cancel safety
///
/// See [`run`](Self::run).
pub struct Combiner<R: Requests>(Arc<Shared<R>>);

struct Shared<R: Requests> {
    requests: R,
    lanes: usize,
    cap: usize,
    state: Mutex<State<R>>,
}

struct State<R: Requests> {
    /// The lanes in use.
    busy: usize,
    /// Which of them callers use for their own operation, and since when, the earliest first.
    turns: BTreeMap<u64, Instant>,
    /// The operations that wait, by the order of their arrival.
    queue: BTreeMap<u64, Queued<R>>,
    /// The number of the next turn or operation.
    next: u64,
}

/// A caller that has used a lane for so long does not poll its future. Its lane is used by others.
const STALLED: Duration = Duration::from_secs(1);

struct Queued<R: Requests> {
    operation: R::Operation,
    sent: Sent,
    reply: Reply<R>,
}

type Reply<R> = oneshot::Sender<Result<<R as Requests>::Answer>>;

/// Operations that share a request, and where their answers go.
struct Batch<R: Requests> {
    operations: Vec<R::Operation>,
    replies: Vec<Reply<R>>,
}

impl<R: Requests> Combiner<R> {
    /// Combines operations into at most `lanes` requests at a time, each with at most `cap`
    /// operations. A value of 0 counts as 1.
    pub fn new(requests: R, lanes: usize, cap: usize) -> Self {
        let state = State { busy: 0, turns: BTreeMap::new(), queue: BTreeMap::new(), next: 0 };
        let (lanes, cap) = (lanes.max(1), cap.max(1));
        Self(Arc::new(Shared { requests, lanes, cap, state: Mutex::new(state) }))
    }

    /// Returns what sends the requests.
    #[must_use]
    pub fn requests(&self) -> &R {
        &self.0.requests
    }

    /// Runs an operation, and marks `sent` when it leaves the process. It must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Requests::connect`] and [`Requests::send`] fail.
    ///
    /// # Cancel safety
    ///
    /// While `sent` is unmarked, dropping the future drops the operation. Later the operation may be
    /// carried out or not. Dropping the future never affects other operations.
    pub async fn run(&self, operation: R::Operation, sent: &Sent) -> Result<R::Answer> {
        let shared = &self.0;
        let waiting = match shared.begin(operation, sent) {
            Begun::Waiting(waiting) => waiting,
            Begun::First(turn, operation) => match shared.requests.connection_at_hand() {
                Some(connection) => {
                    sent.mark();
                    let answer = shared.requests.send_alone(connection, operation).await;
                    drop(turn);
                    return answer;
                }
                // A task waits for the connection, because this caller may leave before it is there.
                None => shared.lock().enqueue(shared, operation, sent),
            },
        };
        waiting.await
    }
}

/// How an operation begins.
enum Begun<R: Requests> {
    /// With a lane of its own.
    First(Turn<R>, R::Operation),
    Waiting(Waiting<R>),
}

impl<R: Requests> State<R> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enqueue(
        &mut self,
        shared: &Arc<Shared<R>>,
        operation: R::Operation,
        sent: &Sent,
    ) -> Waiting<R> {
        let (reply, answer) = oneshot::channel();
        let number = self.number();
        self.queue.insert(number, Queued { operation, sent: sent.clone(), reply });
        Waiting { shared: shared.clone(), number, answer }
    }

    /// Takes the lane of a caller that does not poll its future, if there is one.
    fn reclaim(&mut self, now: Instant) {
        if let Some(earliest) = self.turns.first_entry()
            && now.duration_since(*earliest.get()) >= STALLED
        {
            earliest.remove();
            self.busy -= 1;
        }
    }
}

impl<R: Requests> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, operation: R::Operation, sent: &Sent) -> Begun<R> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.busy >= self.lanes {
            state.reclaim(now);
        }
        // Under one mutex with the check, or the last lane could end in between and serve nobody.
        if state.busy >= self.lanes {
            return Begun::Waiting(state.enqueue(self, operation, sent));
        }
        state.busy += 1;
        let number = state.number();
        state.turns.insert(number, now);
        drop(state);
        let lane = Lane { shared: self.clone(), home: Handle::current() };
        Begun::First(Turn { lane: Some(lane), number }, operation)
    }

    /// Takes what waits, up to the cap, to send it now.
    fn take(&self) -> Batch<R> {
        let mut state = self.lock();
        let count = state.queue.len().min(self.cap);
        let mut batch =
            Batch { operations: Vec::with_capacity(count), replies: Vec::with_capacity(count) };
        while batch.replies.len() < count
            && let Some((_, queued)) = state.queue.pop_first()
        {
            // Under the mutex: a caller that leaves finds its operation either here or marked.
            queued.sent.mark();
            batch.operations.push(queued.operation);
            batch.replies.push(queued.reply);
        }
        batch
    }

    /// Ends the wait of all operations with an error.
    fn fail_all(&self, error: &Error) {
        let queue = std::mem::take(&mut self.lock().queue);
        for queued in queue.into_values() {
            // The caller may have left.
            let _ = queued.reply.send(Err(error.clone()));
        }
    }
}

/// The right to have a request under way.
struct Lane<R: Requests> {
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
struct Turn<R: Requests> {
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
                Err(error) => shared.fail_all(&error),
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
            lane.shared.fail_all(&lane.shared.requests.abandoned());
        }
    }
}

/// An operation that waits for its answer. If it was not sent yet, it is dropped with this.
struct Waiting<R: Requests> {
    shared: Arc<Shared<R>>,
    number: u64,
    answer: oneshot::Receiver<Result<R::Answer>>,
}

impl<R: Requests> Future for Waiting<R> {
    type Output = Result<R::Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        // The sender is dropped without an answer if the runtime of its task ended.
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.shared.requests.abandoned())))
    }
}

impl<R: Requests> Drop for Waiting<R> {
    fn drop(&mut self) {
        let queued = self.shared.lock().queue.remove(&self.number);
        // Outside the mutex, because the operation belongs to the backend.
        drop(queued);
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

//! The operations that wait, and the lanes in use.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_core::{Error, Result, Sent};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::requests::Requests;
use super::wave::{self, Waves};

pub(super) struct Shared<R: Requests> {
    pub(super) requests: R,
    pub(super) lanes: usize,
    pub(super) cap: usize,
    pub(super) waves: Waves,
    state: Mutex<State<R>>,
}

pub(super) struct State<R: Requests> {
    /// The lanes in use.
    pub(super) busy: usize,
    /// Which of them callers use for their own operation, and since when, the earliest first.
    pub(super) turns: BTreeMap<u64, Instant>,
    /// The tasks that are about to take what waits: until when others count on them, and their runtimes.
    pub(super) gatherings: BTreeMap<u64, (Instant, runtime::Id)>,
    /// The operations that wait, by the order of their arrival.
    pub(super) queue: BTreeMap<u64, Queued<R>>,
    /// The number of the next turn, operation or gathering.
    next: u64,
}

/// A caller that has used a lane for so long does not poll its future. Its lane is used by others.
const STALLED: Duration = Duration::from_secs(1);

pub(super) struct Queued<R: Requests> {
    operation: R::Operation,
    sent: Sent,
    reply: Reply<R>,
}

pub(super) type Reply<R> = oneshot::Sender<Result<<R as Requests>::Answer>>;

/// Operations that share a request, and where their answers go.
pub(super) struct Batch<R: Requests> {
    pub(super) operations: Vec<R::Operation>,
    pub(super) replies: Vec<Reply<R>>,
}

impl<R: Requests> State<R> {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn enqueue(
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

    /// Lets others count on a task that is about to take what waits, and returns its number.
    pub(super) fn gather(&mut self, now: Instant, runtime: runtime::Id) -> u64 {
        let number = self.number();
        self.gatherings.insert(number, (now + wave::LONGEST, runtime));
        number
    }

    /// Whether a task is about to take what waits. One on another runtime does not count, because that
    /// runtime may not be driven any more.
    pub(super) fn is_gathering(&self, now: Instant, runtime: runtime::Id) -> bool {
        self.gatherings.values().any(|(until, home)| now <= *until && *home == runtime)
    }

    /// Takes the lane of a caller that does not poll its future, if there is one.
    pub(super) fn reclaim(&mut self, now: Instant) {
        if let Some(earliest) = self.turns.first_entry()
            && now.duration_since(*earliest.get()) >= STALLED
        {
            earliest.remove();
            self.busy -= 1;
        }
    }
}

impl<R: Requests> Shared<R> {
    pub(super) fn new(requests: R, lanes: usize, cap: usize, waves: Waves) -> Self {
        let state = State {
            busy: 0,
            turns: BTreeMap::new(),
            gatherings: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
        };
        Self { requests, lanes, cap, waves, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<R>> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what waits, up to the cap, to send it now.
    pub(super) fn take(&self) -> Batch<R> {
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

    /// The number that the next turn, operation or gathering will have.
    pub(super) fn next_number(&self) -> u64 {
        self.lock().next + 1
    }

    /// Ends the wait of all operations before this number with an error.
    pub(super) fn fail_before(&self, number: u64, error: &Error) {
        let failed = {
            let mut state = self.lock();
            let later = state.queue.split_off(&number);
            std::mem::replace(&mut state.queue, later)
        };
        for queued in failed.into_values() {
            // The caller may have left.
            let _ = queued.reply.send(Err(error.clone()));
        }
    }
}

/// An operation that waits for its answer. If it was not sent yet, it is dropped with this.
pub(super) struct Waiting<R: Requests> {
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

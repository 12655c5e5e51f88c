//! The operations that wait, and the lanes in use.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_core::{Error, Result, Sent};
use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::callers::{Caller, Callers, LONGEST_WAVE};
use super::options::{GroupCommit, TimeLimits};
use super::pace::Pace;
use super::requests::Requests;

pub(super) struct Shared<R: Requests> {
    pub(super) requests: R,
    pub(super) lanes: usize,
    pub(super) cap: usize,
    pub(super) limits: TimeLimits,
    pub(super) callers: Callers,
    state: Mutex<State<R>>,
}

pub(super) struct State<R: Requests> {
    /// The lanes in use.
    pub(super) busy: usize,
    /// Which of them callers use for their own operation, or tasks have that did not run yet, and since when.
    /// The earliest is the first.
    pub(super) reclaimable: BTreeMap<u64, Instant>,
    /// Tasks that were spawned to send what waits, and did not run yet.
    pub(super) tasks: BTreeMap<u64, Spawned>,
    /// The operations that wait, by the order of their arrival.
    pub(super) queue: BTreeMap<u64, Queued<R>>,
    pub(super) pace: Pace,
    /// The number of the next lane, task or operation.
    next: u64,
}

/// A task that did not run yet.
pub(super) struct Spawned {
    home: runtime::Id,
    /// Until when others leave their operations to it, if they do.
    gathers_until: Option<Instant>,
}

/// A caller or a task that has a lane for so long is not polled. Others take the lane.
const STALLED: Duration = Duration::from_secs(1);

pub(super) struct Queued<R: Requests> {
    /// The runtime of its caller.
    pub(super) home: Handle,
    operation: R::Operation,
    sent: Sent,
    reply: Reply<R>,
}

pub(super) type Reply<R> = oneshot::Sender<Result<<R as Requests>::Answer>>;

/// Operations that share a request, and where their answers go.
pub(super) struct Batch<R: Requests> {
    pub(super) operations: Vec<R::Operation>,
    pub(super) replies: Vec<Reply<R>>,
    pub(super) begun: Instant,
}

impl<R: Requests> State<R> {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn enqueue(
        &mut self,
        shared: &Arc<Shared<R>>,
        home: &Handle,
        operation: R::Operation,
        sent: &Sent,
    ) -> Waiting<R> {
        let (reply, answer) = oneshot::channel();
        let number = self.number();
        let queued = Queued { home: home.clone(), operation, sent: sent.clone(), reply };
        self.queue.insert(number, queued);
        Waiting { shared: shared.clone(), number, answer, _caller: shared.callers.enter() }
    }

    /// Whether another request may begin now, for the operations that wait and `more` operations.
    ///
    /// Few callers use a lane each. With more of them, requests are larger if one begins when the last one
    /// has ended, and the server has less work. But nobody waits for a server that is far, for a request
    /// that may be lost, or if there are enough operations to fill a request.
    pub(super) fn may_begin(&self, shared: &Shared<R>, now: Instant, more: usize) -> bool {
        let Shared { lanes, cap, limits, ref callers, .. } = *shared;
        self.busy == 0
            || self.busy < lanes
                && (!self.pace.ends_soon(now, limits.short_request)
                    || self.queue.len() + more >= cap
                    || callers.count() + more <= lanes)
    }

    /// Takes a free lane, which others reclaim if it is not used.
    pub(super) fn take_lane(&mut self, now: Instant) -> u64 {
        self.busy += 1;
        let number = self.number();
        self.reclaimable.insert(number, now);
        number
    }

    /// Gives a lane back, or ends the wait of a task to run.
    pub(super) fn end(&mut self, number: u64) {
        self.tasks.remove(&number);
        // Others may have reclaimed the lane.
        if self.reclaimable.remove(&number).is_some() {
            self.busy -= 1;
        }
    }

    /// Where a task that sends what waits should run, if an operation waits.
    ///
    /// A runtime with threads of its own goes on whatever its callers do. Any other runs only while its
    /// thread drives it. So one task at a time is spawned there, first where the first caller waits.
    pub(super) fn task_home(&self, current: Option<&Handle>) -> Option<Handle> {
        let (_, first) = self.queue.first_key_value()?;
        let has_threads = |home: &Handle| home.runtime_flavor() == RuntimeFlavor::MultiThread;
        let is_free = |home: &Handle| self.tasks.values().all(|task| task.home != home.id());
        let candidates = [current.filter(|home| has_threads(home)), Some(&first.home), current];
        let mut candidates = candidates.into_iter().flatten();
        candidates.find(|home| has_threads(home) || is_free(home)).cloned()
    }

    /// Records a task that has a lane, which others reclaim if it does not run.
    pub(super) fn task_with_lane(&mut self, now: Instant, home: runtime::Id) -> u64 {
        let number = self.take_lane(now);
        self.tasks.insert(number, Spawned { home, gathers_until: None });
        number
    }

    /// Records a task to which others leave their operations for a moment.
    pub(super) fn gathering_task(&mut self, now: Instant, home: runtime::Id) -> u64 {
        let number = self.number();
        let gathers_until = Some(now + LONGEST_WAVE);
        self.tasks.insert(number, Spawned { home, gathers_until });
        number
    }

    /// Whether a task is about to take what waits. One on another runtime does not count, because that
    /// runtime may not be driven any more.
    pub(super) fn is_gathering(&self, now: Instant, runtime: runtime::Id) -> bool {
        let gathers = |task: &Spawned| task.gathers_until.is_some_and(|until| now <= until);
        self.tasks.values().any(|task| task.home == runtime && gathers(task))
    }

    /// Takes the lane of a caller or a task that is not polled, if there is one.
    pub(super) fn reclaim(&mut self, now: Instant) {
        if let Some(earliest) = self.reclaimable.first_entry()
            && now.duration_since(*earliest.get()) >= STALLED
        {
            earliest.remove();
            self.busy -= 1;
        }
    }
}

impl<R: Requests> Shared<R> {
    pub(super) fn new(
        requests: R,
        GroupCommit { lanes, cap }: GroupCommit,
        limits: TimeLimits,
        callers: Callers,
    ) -> Self {
        let state = State {
            busy: 0,
            reclaimable: BTreeMap::new(),
            tasks: BTreeMap::new(),
            queue: BTreeMap::new(),
            pace: Pace::default(),
            next: 0,
        };
        let (lanes, cap) = (lanes.max(1), cap.max(1));
        Self { requests, lanes, cap, limits, callers, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<R>> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what waits, up to the cap, to send it now.
    pub(super) fn take(&self) -> Batch<R> {
        let mut state = self.lock();
        let count = state.queue.len().min(self.cap);
        let begun = Instant::now();
        let (mut operations, mut replies) = (Vec::with_capacity(count), Vec::with_capacity(count));
        while replies.len() < count
            && let Some((_, queued)) = state.queue.pop_first()
        {
            // Under the mutex: a caller that leaves finds its operation either here or marked.
            queued.sent.mark();
            operations.push(queued.operation);
            replies.push(queued.reply);
        }
        if count > 0 {
            state.pace.begin(begun);
        }
        Batch { operations, replies, begun }
    }

    /// The number that the next lane, task or operation will have.
    pub(super) fn next_number(&self) -> u64 {
        self.lock().next + 1
    }

    /// Ends the wait of some operations with an error.
    pub(super) fn fail(&self, error: &Error, fails: impl Fn(u64, &Queued<R>) -> bool) {
        let failed: BTreeMap<_, _> = {
            let mut state = self.lock();
            let queue = std::mem::take(&mut state.queue);
            let (failed, rest) =
                queue.into_iter().partition(|(number, queued)| fails(*number, queued));
            state.queue = rest;
            failed
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
    _caller: Caller,
}

impl<R: Requests> Future for Waiting<R> {
    type Output = Result<R::Answer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        // The sender is dropped without an answer if the runtime of its task ended.
        answer.map(|answer| answer.unwrap_or_else(|_| Err(self.shared.requests.abandoned())))
    }
}

impl<R: Requests> Waiting<R> {
    /// Drops the operation if it was not sent yet.
    pub(super) fn withdraw(&self) -> bool {
        let queued = self.shared.lock().queue.remove(&self.number);
        // It is dropped outside the mutex, because it belongs to the backend.
        queued.is_some()
    }
}

impl<R: Requests> Drop for Waiting<R> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

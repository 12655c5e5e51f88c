//! Which connections are idle, being opened, or waited for.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use tokio::runtime::Id;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::connect::Refusal;

/// A connection to the server.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) connection: PgConnection,
    /// The runtime that drives it. Another one would wait for it for ever.
    pub(super) runtime: Id,
    /// Connections of an earlier generation are not used again.
    pub(super) generation: u64,
    /// How many statements it may still send with the same plans.
    pub(super) same_plans: u32,
    /// One of as many as there are connections.
    _counted: Arc<()>,
}

/// An operation that has a permit, and waits for a connection.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) delivery: oneshot::Sender<Result<Open, Refusal>>,
    pub(super) runtime: Id,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The one used last is the last one.
    idle: Vec<(Open, Instant)>,
    waiting: VecDeque<Waiter>,
    opening: Vec<Opening>,
    /// How many were begun to be opened.
    begun: u64,
    /// Each connection has a clone, wherever it is.
    counter: Arc<()>,
    pub(super) generation: u64,
    refused: Option<Refused>,
    /// The task that closes idle connections.
    pub(super) sweeper: Option<AbortHandle>,
}

/// A connection that is being opened.
#[derive(Debug)]
struct Opening {
    number: u64,
    since: Instant,
    /// If this is dropped, the attempt is given up.
    _needed: oneshot::Sender<Infallible>,
}

/// After this time, a connection that is being opened may be lost in a network that works again by now.
pub(super) const STALLED: Duration = Duration::from_secs(1);

/// The failures to open a connection since the last success.
#[derive(Debug)]
struct Refused {
    last: Refusal,
    pause: Duration,
    retry_at: Instant,
}

/// How long no other connection is opened after one was refused: at first, and at most. Callers that
/// try at once again would else keep a server busy that is just starting.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// How many statements a connection sends with the same plans.
///
/// A session keeps the plan of a prepared statement until the table is vacuumed or analyzed. Right after that,
/// the table may have so few pages that the plan is to read all of them, and the session keeps this plan
/// while hundreds of thousands of leases come and go, and leave pages behind. A new plan takes the server a
/// millisecond, and suits the table as it is by then.
pub(super) const SAME_PLANS: u32 = 1_000;

impl State {
    /// Counts a new connection.
    pub(super) fn open(&self, connection: PgConnection, runtime: Id, generation: u64) -> Open {
        Open {
            connection,
            runtime,
            generation,
            same_plans: SAME_PLANS,
            _counted: self.counter.clone(),
        }
    }

    /// Takes the idle connection of this runtime that was used last, and says since when it is idle.
    pub(super) fn pop(&mut self, runtime: Id) -> Option<(Open, Instant)> {
        let at = self.idle.iter().rposition(|(open, _)| open.runtime == runtime)?;
        Some(self.idle.remove(at))
    }

    /// Takes an idle connection of this runtime that was used within this time.
    pub(super) fn pop_used_within(&mut self, limit: Duration, runtime: Id) -> Option<Open> {
        // The one used last is the last one.
        let at = self.idle.iter().rposition(|(open, _)| open.runtime == runtime)?;
        let recent = self.idle.get(at).is_some_and(|(_, since)| since.elapsed() <= limit);
        recent.then(|| self.idle.remove(at).0)
    }

    /// Gives a connection to the first one who waits for it, or keeps it.
    pub(super) fn deliver(&mut self, mut open: Open, max: usize) {
        if open.generation != self.generation {
            return;
        }
        while let Some(at) = self.waiting.iter().position(|one| one.runtime == open.runtime) {
            let Some(waiter) = self.waiting.remove(at) else { break };
            match waiter.delivery.send(Ok(open)) {
                Ok(()) => return,
                // This one has given up.
                Err(Ok(back)) => open = back,
                Err(Err(_)) => return,
            }
        }
        self.idle.push((open, Instant::now()));
        self.make_room(max);
    }

    /// How many connections are open.
    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.counter) - 1
    }

    /// Closes those idle for longest, so that there are no more than `max` in all.
    pub(super) fn make_room(&mut self, max: usize) {
        let excess = (self.count() + self.opening.len()).saturating_sub(max);
        self.idle.drain(..excess.min(self.idle.len()));
    }

    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiting.push_back(waiter);
    }

    /// How many wait, without those that have given up.
    fn waiters(&mut self) -> usize {
        self.waiting.retain(|waiter| !waiter.delivery.is_closed());
        self.waiting.len()
    }

    /// How many connections are to be opened now.
    ///
    /// Usually there is one for each that waits. While connections are refused or get no answer, one
    /// at a time is tried, and the others follow when that one was opened. So a server that starts, or
    /// is busy, does not get all of them at once, and again and again.
    pub(super) fn missing(&mut self, max: usize) -> usize {
        let waiters = self.waiters();
        let moving = self.opening.iter().filter(|one| one.since.elapsed() < STALLED).count();
        if self.refused.is_some() || moving < self.opening.len() {
            return usize::from(waiters > 0 && moving == 0);
        }
        let missing = waiters.saturating_sub(moving);
        // Idle connections of other runtimes give way.
        self.make_room(max.saturating_sub(missing));
        missing.min(max.saturating_sub(self.count() + self.opening.len()))
    }

    /// Records that a connection is being opened: its number, and what is closed when it is given up.
    pub(super) fn opening(&mut self, since: Instant) -> (u64, oneshot::Receiver<Infallible>) {
        let (needed, given_up) = oneshot::channel();
        self.begun += 1;
        self.opening.push(Opening { number: self.begun, since, _needed: needed });
        (self.begun, given_up)
    }

    /// Records that a connection is no longer being opened.
    pub(super) fn opening_ended(&mut self, number: u64) {
        self.opening.retain(|one| one.number != number);
    }

    /// Records that a connection was opened that was begun at this time. Those that were begun long
    /// before, and are still being opened, are given up.
    pub(super) fn opened(&mut self, since: Instant) {
        self.refused = None;
        self.opening.retain(|one| one.since + STALLED > since);
    }

    /// Records that a connection could not be opened. All who wait get the reason, unless they only
    /// have to wait for another connection to be opened or given back.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        let pause = self.refused.as_ref().map_or(FIRST_PAUSE, |refused| refused.pause * 2);
        let pause = pause.min(LAST_PAUSE);
        let others = self.count() > self.idle.len() || !self.opening.is_empty();
        if !(refusal.is_full() && others) {
            for waiter in self.waiting.drain(..) {
                // This one may have given up.
                let _ = waiter.delivery.send(Err(refusal.clone()));
            }
        }
        self.refused = Some(Refused { last: refusal, pause, retry_at: Instant::now() + pause });
    }

    /// Until when no connection is to be opened.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let retry_at = self.refused.as_ref()?.retry_at;
        (retry_at > Instant::now()).then_some(retry_at)
    }

    pub(super) fn is_opening(&self) -> bool {
        !self.opening.is_empty()
    }

    pub(super) fn last_refusal(&self) -> Option<Refusal> {
        self.refused.as_ref().map(|refused| refused.last.clone())
    }

    /// Closes the idle connections.
    pub(super) fn clear(&mut self) {
        self.idle.clear();
    }

    /// Closes the idle connections, and those that are in use as soon as they are given back.
    pub(super) fn replace_all(&mut self) {
        self.generation += 1;
        self.idle.clear();
    }

    /// Closes those that have been idle for longer. True if others are left.
    pub(super) fn keep_idle_for(&mut self, limit: Duration) -> bool {
        self.idle.retain(|(_, since)| since.elapsed() < limit);
        !self.idle.is_empty()
    }
}

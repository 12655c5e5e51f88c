//! One attempt at a lease, which runs to its end even when its caller goes away.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_core::{Acquired, Error, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::background::unfinished;
use crate::hold::Hold;
use crate::line::Heir;
use crate::manager::Inner;
use crate::{Backoff, LockGuard};

/// How attempts are made for one request.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    manager: Arc<Inner>,
    handle: Handle,
    ttl: Ttl,
    keep_alive: bool,
}

/// How an attempt ended.
pub(crate) enum Attempt {
    Granted(LockGuard),
    Held {
        remaining: Option<Duration>,
    },
    /// With what undoes a grant that may have been made all the same.
    Failed(Error, Option<Undo>),
}

impl Attempts {
    pub(crate) fn new(manager: Arc<Inner>, ttl: Ttl, keep_alive: bool) -> Result<Self> {
        let handle = Handle::try_current().map_err(|source| {
            Error::new(ErrorCode::InvalidArgument, Operation::Acquire)
                .with_message("locks are taken inside a tokio runtime")
                .with_source(source)
        })?;
        Ok(Self { manager, handle, ttl, keep_alive })
    }

    /// Tries once to take `key`.
    pub(crate) async fn acquire(&self, key: &Key, id: &LockId) -> Attempt {
        let (attempts, key, id) = (self.clone(), key.clone(), id.clone());
        let undo = Undo::new(self, &key, &id);
        let attempt = async move {
            let sent = Instant::now();
            let outcome = attempts.manager.backend.acquire(&key, &id, attempts.ttl).await;
            // Carried out when it is dropped, so also when the backend panics.
            let undo = undo.unless_certain(&outcome);
            match outcome {
                Ok(Acquired::Granted(lease)) => Attempt::Granted(attempts.granted(lease, sent)),
                Ok(Acquired::Held { remaining }) => Attempt::Held { remaining },
                Err(error) => Attempt::Failed(error, undo),
            }
        };
        self.to_its_end(attempt).await
    }

    async fn to_its_end<T: 'static>(&self, attempt: impl Future<Output = T> + Send + 'static) -> T {
        let mut attempt = InFlight {
            attempt: Some(Box::pin(attempt)),
            handle: self.handle.clone(),
            tracked: self.manager.background.token(),
        };
        poll_fn(|cx| attempt.poll(cx)).await
    }

    /// Tries once to go on with a lease that was detached.
    ///
    /// Until there is a guard the lease is its owner's, who may try again: so nothing is released
    /// when the future is dropped, though the lease may have been extended.
    pub(crate) async fn adopt(&self, lease: &Lease) -> Result<Option<LockGuard>> {
        let sent = Instant::now();
        let extended = self.manager.backend.extend(lease, self.ttl).await?;
        Ok(extended.map(|lease| self.granted(lease, sent)))
    }

    pub(crate) const fn manager(&self) -> &Arc<Inner> {
        &self.manager
    }

    fn granted(&self, lease: Lease, sent: Instant) -> LockGuard {
        let hold = self.hold(lease, sent, self.handle.clone());
        self.manager.lines.granted(&hold);
        self.claimed(LockGuard::new(hold))
    }

    fn hold(&self, lease: Lease, sent: Instant, handle: Handle) -> Arc<Hold> {
        Arc::new(Hold::new(self.manager.clone(), handle, lease, self.ttl, sent))
    }

    /// The guard has come into its owner's hands. Before that it is not kept alive: an owner that is
    /// not polled must not hold the key for ever.
    pub(crate) fn claimed(&self, guard: LockGuard) -> LockGuard {
        guard.moves_to(self.handle.clone());
        if self.keep_alive {
            guard.keep_alive();
        }
        guard
    }
}

/// Hands a lease over instead of releasing it. Whether it was live, as for a release.
pub(crate) async fn handoff(heir: Heir, lease: &Lease) -> Result<bool> {
    let (attempts, lease) = (heir.attempts().clone(), lease.clone());
    let handoff = async move {
        let attempts = heir.attempts().clone();
        let sent = Instant::now();
        match attempts.manager.backend.handoff(&lease, heir.id(), attempts.ttl).await {
            Ok(Some(lease)) => {
                // Until the heir has it, whose runtime may be gone by then.
                let here = Handle::try_current().unwrap_or_else(|_| attempts.handle.clone());
                heir.granted(&attempts.hold(lease, sent, here));
                Ok(true)
            }
            Ok(None) => {
                heir.refused();
                Ok(false)
            }
            Err(error) => {
                if is_certain(error.code()) {
                    heir.refused();
                }
                Err(error)
            }
        }
    };
    attempts.to_its_end(handoff).await
}

/// A request for a lease that was sent. When it is dropped before its end, it goes on in a task of
/// its own, and what it brings is dropped there: a guard then releases its lease, an error undoes
/// what may have been granted (C1).
///
/// To stop it halfway would be wrong: a release that is sent at once can overtake the acquire on
/// another connection, which is then granted to nobody.
struct InFlight<T: 'static> {
    attempt: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    handle: Handle,
    /// Keeps shutdown waiting.
    tracked: TaskTrackerToken,
}

impl<T> InFlight<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that one that panics is not polled again. One that has ended is not either.
        let Some(mut attempt) = self.attempt.take() else {
            return Poll::Pending;
        };
        let polled = attempt.as_mut().poll(cx);
        if polled.is_pending() {
            self.attempt = Some(attempt);
        }
        polled
    }
}

impl<T> Drop for InFlight<T> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            let tracked = self.tracked.clone();
            // The handle of the task is not needed: shutdown waits for the token.
            drop(self.handle.spawn(async move {
                drop(attempt.await);
                drop(tracked);
            }));
        }
    }
}

/// Releases by id what an unanswered attempt may have been granted, unless it is disarmed.
#[derive(Debug)]
pub(crate) struct Undo(Option<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    attempts: Attempts,
    key: Key,
    id: LockId,
    /// Keeps shutdown waiting until the release is under way, or the guard is there.
    tracked: Option<TaskTrackerToken>,
}

/// For how long an unanswered attempt is undone at most, and how often it is looked for again where
/// the server knows nothing of it: the request may have been held up on its way.
const UNDO_LIMIT: Duration = Duration::from_secs(60);
const UNDO_LOOKS: u32 = 4;

impl Undo {
    pub(crate) fn new(attempts: &Attempts, key: &Key, id: &LockId) -> Self {
        let tracked = Some(attempts.manager.background.token());
        let (attempts, key, id) = (attempts.clone(), key.clone(), id.clone());
        Self(Some(Unanswered { attempts, key, id, tracked }))
    }

    /// For a guard, which shutdown does not wait for.
    pub(crate) fn untracked(mut self) -> Self {
        if let Some(unanswered) = &mut self.0 {
            unanswered.tracked = None;
        }
        self
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }

    /// Still armed, unless the outcome leaves no doubt about what the backend did.
    fn unless_certain(self, outcome: &Result<Acquired>) -> Option<Self> {
        if outcome.as_ref().map_or_else(|error| is_certain(error.code()), |_| true) {
            self.disarm();
            return None;
        }
        Some(self)
    }
}

/// Whether a request that failed so has changed nothing.
const fn is_certain(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::AuthFailed | ErrorCode::InvalidArgument)
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(Unanswered { attempts, key, id, tracked }) = self.0.take() {
            let Attempts { manager, handle, ttl, .. } = attempts;
            let background = manager.background.clone();
            let until = Instant::now() + ttl.as_duration().min(UNDO_LIMIT);
            let unfinished = unfinished().with_key(&key);
            background.release(&handle, until, unfinished, move || {
                let (manager, key, id) = (manager.clone(), key.clone(), id.clone());
                async move {
                    let released = release_by_id(&manager, &key, &id).await;
                    released.map_err(|error| error.with_key(&key))
                }
            });
            drop(tracked);
        }
    }
}

/// All looks are taken, also after one that found a lease: an earlier attempt may have brought it,
/// and a later one may still be on its way.
async fn release_by_id(manager: &Inner, key: &Key, id: &LockId) -> Result<bool> {
    let mut released = false;
    let mut pauses = Backoff::default().pauses(Some(UNDO_LOOKS));
    loop {
        if manager.backend.release_by_id(id).await? {
            manager.lines.freed(key, None);
            released = true;
        }
        match pauses.next() {
            Some(pause) => sleep(pause).await,
            None => return Ok(released),
        }
    }
}

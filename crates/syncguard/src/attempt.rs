//! One attempt at a lease, which runs to its end even when its caller goes away.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use syncguard_core::{Acquired, Error, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::LockGuard;
use crate::background::unfinished;
use crate::hold::{Hold, after};
use crate::manager::Inner;

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
        let (manager, key, id, ttl) = (self.manager.clone(), key.clone(), id.clone(), self.ttl);
        let undo = Undo::new(self, &id);
        self.run(async move { manager.backend.acquire(&key, &id, ttl).await }, Some(undo)).await
    }

    /// Tries once to go on with a lease that was detached. A lease that is gone is *held*.
    pub(crate) async fn adopt(&self, lease: &Lease) -> Attempt {
        let (manager, lease, ttl) = (self.manager.clone(), lease.clone(), self.ttl);
        let extend = async move {
            Ok(match manager.backend.extend(&lease, ttl, false).await? {
                Some(lease) => Acquired::Granted(lease),
                None => Acquired::Held { remaining: None },
            })
        };
        // Nothing to undo: after an error the lease is still its owner's, who may try again.
        self.run(extend, None).await
    }

    /// `undo` is dropped, and so carried out, unless the outcome is certain.
    async fn run(
        &self,
        call: impl Future<Output = Result<Acquired>> + Send + 'static,
        undo: Option<Undo>,
    ) -> Attempt {
        let Self { manager, handle, ttl, keep_alive } = self.clone();
        let tracked = manager.background.token();
        let attempt = async move {
            let sent = Instant::now();
            let outcome = call.await;
            let undo = undo.and_then(|undo| undo.unless_certain(&outcome));
            match outcome {
                Ok(Acquired::Granted(lease)) => {
                    let hold = Arc::new(Hold::new(manager, handle, lease, ttl, sent));
                    if keep_alive {
                        hold.keep_alive();
                    }
                    Attempt::Granted(LockGuard::new(hold))
                }
                Ok(Acquired::Held { remaining }) => Attempt::Held { remaining },
                Err(error) => Attempt::Failed(error, undo),
            }
        };
        let mut attempt =
            InFlight { attempt: Some(Box::pin(attempt)), handle: self.handle.clone(), tracked };
        poll_fn(|cx| attempt.poll(cx)).await
    }
}

/// An attempt that was sent. When it is dropped before its end, it goes on in a task of its own, and
/// what it brings is dropped there: a guard then releases its lease, an error undoes what may have
/// been granted (C1).
///
/// To stop it halfway would be wrong: a release that is sent at once can overtake the acquire on
/// another connection, which is then granted to nobody.
struct InFlight {
    attempt: Option<Pin<Box<dyn Future<Output = Attempt> + Send>>>,
    handle: Handle,
    /// Keeps shutdown waiting.
    tracked: TaskTrackerToken,
}

impl InFlight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Attempt> {
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

impl Drop for InFlight {
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
pub(crate) struct Undo(Option<(Attempts, LockId)>);

impl Undo {
    fn new(attempts: &Attempts, id: &LockId) -> Self {
        Self(Some((attempts.clone(), id.clone())))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }

    /// Still armed, unless the outcome leaves no doubt about what the backend did.
    fn unless_certain(self, outcome: &Result<Acquired>) -> Option<Self> {
        let code = outcome.as_ref().err().map(Error::code);
        if let None | Some(ErrorCode::AuthFailed | ErrorCode::InvalidArgument) = code {
            self.disarm();
            return None;
        }
        Some(self)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some((attempts, id)) = self.0.take() {
            let Attempts { manager, handle, ttl, .. } = attempts;
            let background = manager.background.clone();
            let until = after(Instant::now(), ttl.as_duration());
            let unfinished = unfinished().with_id(&id);
            background.release(&handle, until, unfinished, move || {
                let (manager, id) = (manager.clone(), id.clone());
                async move { manager.backend.release_by_id(&id).await }
            });
        }
    }
}

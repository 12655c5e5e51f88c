//! One attempt at a lease, in a task of its own, so that nothing is lost when its caller goes away.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Acquired, Error, ErrorCode, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::LockGuard;
use crate::background::unfinished;
use crate::hold::{Hold, after};
use crate::keep_alive::keep;
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
                .with_message("locks are taken inside a tokio runtime with its timer enabled")
                .with_source(source)
        })?;
        Ok(Self { manager, handle, ttl, keep_alive })
    }

    /// Tries once to take `key`.
    ///
    /// Dropping the future does not stop the attempt: it runs to its end, and what it got is
    /// released in the background (C1). To stop it halfway would be wrong, since a release sent at
    /// once can overtake the acquire on another connection.
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
        let (answer, answered) = oneshot::channel();
        let Self { manager, handle, ttl, keep_alive } = self.clone();
        let tracked = manager.background.token();
        // The handle of the task is not needed: the token tracks it while it works, and from the
        // grant on its end is that of the guard.
        drop(self.handle.spawn(async move {
            let sent = Instant::now();
            let outcome = call.await;
            let undo = undo.and_then(|undo| undo.unless_certain(&outcome));
            let (attempt, hold) = match outcome {
                Ok(Acquired::Granted(lease)) => {
                    let hold = Arc::new(Hold::new(manager, handle, lease, ttl, sent));
                    (Attempt::Granted(LockGuard::new(hold.clone())), Some(hold))
                }
                Ok(Acquired::Held { remaining }) => (Attempt::Held { remaining }, None),
                Err(error) => (Attempt::Failed(error, undo), None),
            };
            // When the caller has gone, the answer comes back and is dropped: a guard then releases
            // its lease, an error undoes what may have been granted.
            drop(answer.send(attempt));
            drop(tracked);
            if let Some(hold) = hold {
                keep(&hold, keep_alive).await;
            }
        }));
        answered.await.unwrap_or_else(|closed| {
            // The task was dropped or panicked: the runtime shuts down, or the backend has a bug.
            let error = Error::new(ErrorCode::Internal, Operation::Acquire)
                .with_message("the attempt ended without an answer")
                .with_source(closed);
            Attempt::Failed(error, None)
        })
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

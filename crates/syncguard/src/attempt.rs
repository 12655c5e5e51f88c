//! One request for a lease, by acquire or adopt, and the guard that it yields.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Acquired, Error, ErrorCode, Key, Lease, Operation, Result, Sent};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::guard::LockGuard;
use crate::in_flight::InFlight;
use crate::queue::{Number, Terms};
use crate::shared::Shared;
use crate::undo::{Undo, changed_nothing};

/// How an attempt ended.
pub(crate) enum Attempt {
    Granted(LockGuard),
    Held {
        remaining: Option<Duration>,
    },
    /// With what undoes a grant that may have been made all the same.
    Failed(Error, Option<Undo>),
}

/// Tries once to take `key`, for a waiter of its queue or for nobody in the queue. Once it was sent,
/// the attempt runs to its end even if this future is dropped.
pub(crate) async fn acquire(
    shared: &Arc<Shared>,
    home: &Handle,
    key: &Key,
    terms: &Terms,
    waiter: Option<Number>,
) -> Attempt {
    // Carried out if it is dropped, so also if the backend panics.
    let sent = Sent::default();
    let undo = Undo::once_sent(shared, home, key, terms, sent.clone());
    let request = async move {
        let (shared, key, terms, sent) = undo.request();
        let begun = Instant::now();
        match shared.backend.acquire(key, &terms.id, terms.ttl, sent).await {
            Ok(Acquired::Granted(lease)) => {
                let answered = Instant::now();
                let lease = match shared.held_lease(lease, terms, begun, answered) {
                    Ok(lease) => lease,
                    Err(error) => return Attempt::Failed(error, Some(undo.tracked())),
                };
                if lease.is_over(answered) {
                    let late =
                        Error::new(ErrorCode::NetworkTimeout, Operation::Acquire).with_key(key);
                    let late = late.with_message("the answer came after the TTL: raise the TTL");
                    // The next attempt finds the same lease and renews it, or it is undone.
                    return Attempt::Failed(late, Some(undo.tracked()));
                }
                let holder = lease.holder();
                let guard = LockGuard::new(shared.clone(), lease, undo.home().clone());
                shared.queues.update(key, |queue| ((), queue.granted(waiter, holder, begun)));
                undo.disarm();
                Attempt::Granted(guard)
            }
            Ok(Acquired::Held { remaining }) => {
                undo.disarm();
                Attempt::Held { remaining }
            }
            Err(error) if changed_nothing(error.code()) || !sent.is_marked() => {
                undo.disarm();
                Attempt::Failed(error, None)
            }
            Err(error) => Attempt::Failed(error, Some(undo.tracked())),
        }
    };
    InFlight::new(home, shared.background.token(), sent, request).await
}

/// Tries once to go on with a lease that was detached.
///
/// Until there is a guard, the lease is its owner's, who may try again. So nothing is released if the
/// future is dropped, although the lease may have been extended.
pub(crate) async fn adopt(
    shared: &Arc<Shared>,
    home: &Handle,
    lease: &Lease,
    terms: &Terms,
) -> Result<Option<LockGuard>> {
    let sent = Instant::now();
    let Some(extended) = shared.backend.extend(lease, terms.ttl).await? else {
        return Ok(None);
    };
    let lease = shared.held_lease(extended, terms, sent, Instant::now())?;
    let holder = lease.holder();
    let guard = LockGuard::new(shared.clone(), lease, home.clone());
    shared.queues.update(guard.key(), |queue| ((), queue.granted(None, holder, sent)));
    Ok(Some(guard))
}

//! One attempt at a lease.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Acquired, Error, Key, Lease, Result, Ttl};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::guard::LockGuard;
use crate::in_flight::to_its_end;
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

/// Tries once to take `key`, for a waiter of its queue or for nobody in the queue. The attempt runs to
/// its end even if this future is dropped.
pub(crate) async fn acquire(
    shared: &Arc<Shared>,
    home: &Handle,
    key: &Key,
    terms: &Terms,
    waiter: Option<Number>,
) -> Attempt {
    // Carried out if it is dropped, so also if the backend panics.
    let undo = Undo::new(shared, home, key, &terms.id, terms.ttl);
    let (own_shared, own_home) = (shared.clone(), home.clone());
    let (own_key, terms) = (key.clone(), terms.clone());
    let request = async move {
        let (shared, key) = (own_shared, own_key);
        let sent = Instant::now();
        match shared.backend.acquire(&key, &terms.id, terms.ttl).await {
            Ok(Acquired::Granted(lease)) => {
                undo.disarm();
                let lease = shared.held_lease(lease, terms.ttl, sent, terms.max_hold);
                let holder = lease.holder();
                let guard = LockGuard::new(shared, lease, own_home);
                guard
                    .shared()
                    .queues
                    .update(&key, |queue| ((), queue.granted(waiter, holder, Instant::now())));
                Attempt::Granted(guard)
            }
            Ok(Acquired::Held { remaining }) => {
                undo.disarm();
                Attempt::Held { remaining }
            }
            Err(error) if changed_nothing(error.code()) => {
                undo.disarm();
                Attempt::Failed(error, None)
            }
            Err(error) => Attempt::Failed(error, Some(undo)),
        }
    };
    to_its_end(home, shared.background.token(), request).await
}

/// Tries once to go on with a lease that was detached.
///
/// Until there is a guard, the lease is its owner's, who may try again. So nothing is released if the
/// future is dropped, although the lease may have been extended.
pub(crate) async fn adopt(
    shared: &Arc<Shared>,
    home: &Handle,
    lease: &Lease,
    ttl: Ttl,
    max_hold: Option<Duration>,
) -> Result<Option<LockGuard>> {
    let sent = Instant::now();
    let Some(extended) = shared.backend.extend(lease, ttl).await? else {
        return Ok(None);
    };
    let lease = shared.held_lease(extended, ttl, sent, max_hold);
    let holder = lease.holder();
    let guard = LockGuard::new(shared.clone(), lease, home.clone());
    let key = guard.key();
    shared.queues.update(key, |queue| ((), queue.granted(None, holder, Instant::now())));
    Ok(Some(guard))
}

//! Gives up a lease for good: asks until the store has answered, or the lease is over.

use std::sync::Arc;

use syncguard_core::{Backend, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::errand::Errand;
use crate::{Backoff, LockGuard};

/// The outcome of a resignation, once it is known.
pub(super) type Outcome = watch::Sender<Option<Result<bool>>>;

/// Starts to release the lease, in a task for which shutdown waits. A request that fails is sent again,
/// whatever its error says, because the key stays without a leader until it was answered.
pub(super) fn start(guard: &Arc<LockGuard>, outcome: &Arc<Outcome>) {
    let (guard, outcome, told) = (guard.clone(), outcome.clone(), outcome.clone());
    let (shared, _, home) = guard.parts();
    let (tracked, fallback) = (shared.background.token(), shared.background.fallback().cloned());
    let home = home.clone();
    let work = move || {
        let (guard, outcome) = (guard.clone(), outcome.clone());
        async move {
            let released = release(&guard).await;
            outcome.send_replace(Some(released));
        }
    };
    // Dropping the guard reports that no runtime is left.
    let abandoned = move || {
        told.send_replace(Some(Ok(false)));
    };
    Errand::new(work, abandoned).tracked(tracked).start(&home, fallback.as_ref());
}

async fn release(guard: &LockGuard) -> Result<bool> {
    let (shared, lease, _) = guard.parts();
    let mut pauses = Backoff::default().pauses_after_failure();
    let released = loop {
        match guard.end().await {
            Ok(released) => break released,
            Err(error) => {
                let pause = pauses.next();
                if Instant::now() + pause >= lease.stands_until() {
                    return Err(error);
                }
                sleep(pause).await;
            }
        }
    };
    if shared.backend.capabilities().publishes() {
        // What stays behind is shown to nobody, and expires.
        drop(shared.backend.backend.withdraw(&lease.lease()).await);
    }
    Ok(released)
}

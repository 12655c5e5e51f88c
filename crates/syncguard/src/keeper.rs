//! The keeper of a lease: a task that renews it and signals its loss.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::ErrorCode;
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::errand::Errand;
use crate::extension::extend;
use crate::lease::HeldLease;
use crate::loss;
use crate::shared::Shared;

/// A failed renewal is tried again after this part of the TTL.
const RETRY_PART: u32 = 12;

/// If a renewal starts this part of the TTL too late, the runtime was blocked.
const LATE_PART: u32 = 6;

/// Starts a task that watches over the lease until its guard lets go or it is lost, and renews it if
/// `renew`. If its runtime goes away, the task moves to another one.
pub(crate) fn start(shared: &Arc<Shared>, lease: &Arc<HeldLease>, home: &Handle, renew: bool) {
    if !lease.needs_keeper() {
        return;
    }
    let fallback = shared.background.fallback().cloned();
    let (by_work, by_end) = ((shared.clone(), lease.clone()), (shared.clone(), lease.clone()));
    let work = move || {
        let (shared, lease) = by_work.clone();
        async move { keep(&shared, &lease, renew).await }
    };
    // Nobody watches the deadline any more, so nobody may rely on it.
    let abandoned = move || loss::signal(&by_end.0, &by_end.1);
    Errand::new(work, abandoned).start(home, fallback.as_ref());
}

async fn keep(shared: &Shared, lease: &HeldLease, renew: bool) {
    tokio::select! {
        biased;
        () = lease.ended() => {}
        () = loss::lost(shared, lease) => {}
        () = renewals(shared, lease), if renew => {}
    }
}

/// Renews until the lease is gone. An error is not a loss (H4).
async fn renewals(shared: &Shared, lease: &HeldLease) {
    let (mut warned, mut was_late) = (None, false);
    loop {
        let due = lease.renewal_due().await;
        let ttl = lease.ttl();
        // One that is tried again is late on purpose. And one warning for each lease is enough.
        if warned.is_none() && !was_late {
            was_late = warn_if_late(lease, due.elapsed(), ttl.as_duration());
        }
        match extend(shared, lease, ttl).await {
            Ok(Some(_)) => warned = None,
            Ok(None) => return,
            Err(error) => {
                warn_once(&mut warned, &error);
                sleep(ttl.as_duration() / RETRY_PART).await;
            }
        }
    }
}

/// Warns of a failure that differs from the one before: one that lasts is one warning.
fn warn_once(warned: &mut Option<ErrorCode>, error: &syncguard_core::Error) {
    if warned.replace(error.code()) != Some(error.code()) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "a renewal failed and is tried again until the lease is over"
        );
    }
}

fn warn_if_late(lease: &HeldLease, late: Duration, ttl: Duration) -> bool {
    let is_late = late > ttl / LATE_PART;
    if is_late {
        tracing::warn!(
            key = %lease.granted().key().fingerprint(),
            late_ms = late.as_millis(),
            "a renewal started late because the runtime was blocked: move blocking work to \
             spawn_blocking or block_in_place, and let long computations yield"
        );
    }
    is_late
}

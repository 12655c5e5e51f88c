//! Signals that a lease is lost: once, to the holder, the queue, the log and the observer.

use syncguard_core::{ErrorCode, Operation};

use crate::event::Outcome;
use crate::lease::HeldLease;
use crate::shared::Shared;

/// Signals the loss of a lease, unless that was done before or its guard has let go.
pub(crate) fn signal(shared: &Shared, lease: &HeldLease) {
    if !lease.lose() {
        return;
    }
    let granted = lease.granted();
    let number = lease.holder().number;
    shared.queues.update(granted.key(), |queue| ((), queue.freed(Some(number))));
    tracing::warn!(key = %granted.key().fingerprint(), fence = %granted.fence(), "a lease was lost");
    shared.backend.report(
        Operation::Hold,
        Outcome::Failed(ErrorCode::Lost),
        granted.key(),
        Some(granted.id()),
        lease.started(),
        None,
    );
}

/// Resolves when the lease is lost: the backend said so, or its time is over.
pub(crate) async fn lost(shared: &Shared, lease: &HeldLease) {
    lease.over().await;
    signal(shared, lease);
}

//! Extends a lease that this process holds.

use syncguard_core::{Lease, Result, Ttl};
use tokio::time::Instant;

use crate::lease::HeldLease;
use crate::loss;
use crate::shared::Shared;

/// Extends the lease to `ttl` from now. `None` if it is gone, which is signalled as a loss.
pub(crate) async fn extend(shared: &Shared, lease: &HeldLease, ttl: Ttl) -> Result<Option<Lease>> {
    let _one_at_a_time = lease.sending.lock().await;
    let sent = Instant::now();
    let Some(present) = lease.begin_extend(sent, ttl) else {
        loss::signal(shared, lease);
        return Ok(None);
    };
    tell_the_queue(shared, lease);
    let extended = shared.backend.extend(&present, ttl).await?;
    let in_time = |extended: &Lease| lease.extended(sent, ttl, extended.clone());
    let Some(extended) = extended.filter(in_time) else {
        loss::signal(shared, lease);
        return Ok(None);
    };
    tell_the_queue(shared, lease);
    Ok(Some(extended))
}

/// The first waiter relies on the deadline of a holder in its process.
fn tell_the_queue(shared: &Shared, lease: &HeldLease) {
    let holder = lease.holder();
    shared.queues.with(lease.granted().key(), |queue| queue.extended(holder));
}

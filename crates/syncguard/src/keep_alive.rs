//! The keeper: a task that renews a lease and signals its loss.

use tokio::time::sleep;

use crate::hold::Hold;

/// A failed renewal is tried again after this part of the TTL.
const RETRY_PART: u32 = 12;

/// Watches over a lease until its guard lets go or the lease is lost, and renews it if asked to.
pub(crate) async fn keep(hold: &Hold, keep_alive: bool) {
    tokio::select! {
        biased;
        () = hold.ended() => {}
        () = hold.lost() => {}
        () = renewals(hold), if keep_alive => {}
    }
}

/// Renews until the lease is gone, which [`Hold::extend`] signals. An error is no loss (H4).
async fn renewals(hold: &Hold) {
    loop {
        hold.renewal_due().await;
        let ttl = hold.ttl();
        match hold.extend(ttl).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a renewal failed and will be tried again"
                );
                sleep(ttl.as_duration() / RETRY_PART).await;
            }
        }
    }
}

//! The state of one lock manager: its backend, its queues and its background work.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use syncguard_core::{Capabilities, Error, ErrorCode, Fence, Lease, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::background::Background;
use crate::fences::HighestFences;
use crate::lease::{HeldLease, Timing};
use crate::observe::Observed;
use crate::queue::Terms;
use crate::queues::{Queues, next_number};
use crate::turns::Peers;
use crate::undos::Undos;

/// What the parts of one lock manager share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Observed,
    pub(crate) background: Background,
    pub(crate) queues: Queues<Grant>,
    pub(crate) fences: HighestFences,
    pub(crate) undos: Undos,
    /// How many terms candidates of this manager lead.
    pub(crate) terms: AtomicUsize,
    pub(crate) shutdown_limit: Duration,
    /// Whether clients that only poll get their share of a contended key.
    pub(crate) serve_pollers: bool,
}

/// A lease that was handed off and that its waiter has not picked up.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) lease: Arc<HeldLease>,
    /// The runtime of the release, in case the one of the waiter is gone.
    pub(crate) from: Handle,
    /// Keeps shutdown waiting until the lease is in its holder's hands, or released.
    pub(crate) tracked: TaskTrackerToken,
}

impl Shared {
    /// A lease that was granted to a request which was sent at `sent` and answered at `answered`. An error
    /// if its fence says that the store has lost data.
    pub(crate) fn held_lease(
        &self,
        lease: Lease,
        terms: &Terms,
        sent: Instant,
        answered: Instant,
    ) -> Result<Arc<HeldLease>> {
        if let Err(highest) = self.fences.check(&lease, sent, answered) {
            return Err(went_back(&lease, highest));
        }
        let timing = Timing {
            ends_at_ttl: self.backend.capabilities().ends_at_ttl(),
            hold_until: terms.max_hold.and_then(|max_hold| sent.checked_add(max_hold)),
        };
        Ok(Arc::new(HeldLease::new(next_number(), lease, terms.ttl, sent, timing)))
    }

    /// How others learn of a release, and how this process learns of theirs.
    pub(crate) const fn peers(&self, capabilities: Capabilities) -> Peers {
        Peers {
            notified: capabilities.sends_notifications(),
            notify_us: capabilities.receives_notifications(),
            poll: self.serve_pollers,
        }
    }
}

/// The error for a grant whose fence is not higher than `highest`, and a line in the log.
fn went_back(lease: &Lease, highest: Fence) -> Error {
    let (key, fence) = (lease.key(), lease.fence());
    tracing::error!(
        key = %key.fingerprint(),
        %fence,
        %highest,
        "the store granted a fence again: it has lost data, and two holders may be at work"
    );
    Error::new(ErrorCode::FenceRegression, Operation::Acquire).with_key(key).with_message(format!(
        "the store granted fence {fence} after {highest}: it has lost data, as in a failover to a \
         replica that lagged behind, and another holder may be at work; the grant was not used"
    ))
}

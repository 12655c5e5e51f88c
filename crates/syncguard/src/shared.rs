//! The state of one lock manager: its backend, its queues and its background work.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Capabilities, Lease};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::background::Background;
use crate::lease::{HeldLease, Timing};
use crate::observe::Observed;
use crate::queue::Terms;
use crate::queues::{Queues, next_number};
use crate::turns::Peers;

/// What the parts of one lock manager share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) backend: Observed,
    pub(crate) background: Background,
    pub(crate) queues: Queues<Grant>,
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
    /// A lease that was granted to a request which was sent at `sent`.
    pub(crate) fn held_lease(&self, lease: Lease, terms: &Terms, sent: Instant) -> Arc<HeldLease> {
        let timing = Timing {
            ends_at_ttl: self.backend.capabilities().ends_at_ttl(),
            hold_until: terms.max_hold.and_then(|max_hold| sent.checked_add(max_hold)),
        };
        Arc::new(HeldLease::new(next_number(), lease, terms.ttl, sent, timing))
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

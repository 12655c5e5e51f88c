//! Who leads, as an observer knows it.

use std::time::Instant;

use syncguard_core::Fence;

/// Who leads, as an [`Observation`](crate::Observation) knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leadership {
    /// Nobody leads: no lease of the key is live.
    Vacant,
    /// Somebody leads.
    Led {
        /// The number of the term.
        fence: Fence,
        /// The name that the leader has published. `None` if it has published nothing, or not yet.
        candidate: Option<String>,
        /// What the leader has published beside its name. `None` as for the name.
        value: Option<Vec<u8>>,
    },
    /// The store does not answer, or what it answers is older than what was seen before.
    Unknown {
        /// When the store last answered, or when the observation began.
        since: Instant,
    },
}

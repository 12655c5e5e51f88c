//! Defects for negative controls: the checker must report each.

use serde::{Deserialize, Serialize};

/// What is wrong in a run on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Defect {
    /// The backend frees a key that is held, and takes it.
    BackendIgnoresHolder,
    /// The holder goes on after its loss.
    HolderIgnoresLoss,
    /// Guards are forgotten while they are kept alive.
    GuardsLeak,
    /// The fence counters are deleted in the middle of the run.
    CountersDeleted,
}

impl Defect {
    pub(crate) const ALL: [Self; 4] = [
        Self::BackendIgnoresHolder,
        Self::HolderIgnoresLoss,
        Self::GuardsLeak,
        Self::CountersDeleted,
    ];
}

//! Negative controls: runs in which something is wrong, which the checker must report.

use std::time::Duration;

use crate::check::{self, Kind, Violation};
use crate::defect::Defect;
use crate::outcome::Outcome;
use crate::parent::target::Target;
use crate::parent::{self, Plan};

/// How long a defect is run. If it was not found, it is run once more and for longer: on a busy machine, a
/// slow store grants only a few leases meanwhile.
const LENGTHS: [Duration; 3] =
    [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(90)];

/// Runs each defect until it is found. An error names one that was not found.
pub(crate) async fn run(target: &Target, seed: u64) -> Outcome {
    for defect in Defect::ALL {
        let mut caught = Vec::new();
        for length in LENGTHS {
            caught = reported(target, seed, defect, length).await?;
            if !caught.is_empty() {
                break;
            }
        }
        let Some(first) = caught.first() else {
            return Err(format!("the control {defect:?} was not reported").into());
        };
        println!("control {defect:?}: reported {} times: {first}", caught.len());
    }
    Ok(())
}

async fn reported(
    target: &Target,
    seed: u64,
    defect: Defect,
    length: Duration,
) -> Outcome<Vec<Violation>> {
    let plan = Plan {
        name: format!("control-{defect:?}-{}", length.as_secs()),
        seed,
        workers: 3,
        warm_up: Duration::from_secs(4),
        faults: Duration::from_secs(2),
        calm: length,
        defect: Some(defect),
    };
    let folder = tempfile::tempdir()?;
    parent::run(&plan, target, folder.path()).await?;
    let mut found = check::check(&check::read(folder.path())?).violations;
    found.retain(|violation| kinds(defect).contains(&violation.kind));
    Ok(found)
}

/// How a defect may be found.
const fn kinds(defect: Defect) -> &'static [Kind] {
    match defect {
        Defect::BackendIgnoresHolder | Defect::HolderIgnoresLoss => &[Kind::TwoHolders],
        Defect::CountersDeleted => &[Kind::Fence],
        Defect::GuardsLeak => &[Kind::Leak],
    }
}

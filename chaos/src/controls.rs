//! Negative controls: runs in which something is wrong, which the checker must report.

use std::time::Duration;

use crate::check::{self, Kind};
use crate::defect::Defect;
use crate::outcome::Outcome;
use crate::parent::target::Target;
use crate::parent::{self, Plan};

/// Runs each defect for a while. An error names a defect that was not found.
pub(crate) async fn run(target: &Target, seed: u64) -> Outcome {
    for defect in Defect::ALL {
        let plan = Plan {
            name: format!("control-{defect:?}"),
            seed,
            workers: 3,
            warm_up: Duration::from_secs(4),
            faults: Duration::from_secs(2),
            calm: Duration::from_secs(10),
            defect: Some(defect),
        };
        let folder = tempfile::tempdir()?;
        parent::run(&plan, target, folder.path()).await?;
        let report = check::check(&check::read(folder.path())?);
        let caught = report.violations.iter().filter(|found| kinds(defect).contains(&found.kind));
        let caught = caught.collect::<Vec<_>>();
        let Some(first) = caught.first() else {
            return Err(format!("the control {defect:?} was not reported").into());
        };
        println!("control {defect:?}: reported {} times: {first}", caught.len());
    }
    Ok(())
}

/// How a defect may be found.
const fn kinds(defect: Defect) -> &'static [Kind] {
    match defect {
        Defect::BackendIgnoresHolder | Defect::HolderIgnoresLoss => &[Kind::TwoHolders],
        Defect::CountersDeleted => &[Kind::Fence],
        Defect::GuardsLeak => &[Kind::Leak],
    }
}

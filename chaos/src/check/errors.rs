//! Each error has a cause that explains it, and nothing panics.

use std::time::Duration;

use super::run::{Process, Run};
use super::violation::{Kind, Violation};
use crate::clock::Moment;
use crate::event::{Event, Phase};

/// How long after an outage requests may still fail: a wait that began in it ends within this time.
const GRACE: Duration = Duration::from_secs(4);
/// A lease is lost if nothing renewed it for as long as this, the longest TTL.
const LONGEST_TTL: Duration = Duration::from_secs(3);

/// Returns the number of errors.
pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> usize {
    let mut errors = 0;
    for process in &run.processes {
        for entry in &process.entries {
            match &entry.event {
                Event::Panicked { message } => {
                    let text = format!("worker {}: {message}", process.name());
                    found.push(Violation::new(Kind::Panic, entry.at, text));
                }
                Event::Failed { operation, code, message, began } => {
                    errors += 1;
                    if !is_explained(run, process, code, *began, entry.at) {
                        let text =
                            format!("worker {}: {operation}: {code}: {message}", process.name());
                        found.push(Violation::new(Kind::Error, entry.at, text));
                    }
                }
                _ => {}
            }
        }
    }
    errors
}

fn is_explained(run: &Run, process: &Process, code: &str, began: Moment, at: Moment) -> bool {
    let disturbed = |from: Moment| {
        run.is_disturbed(from, at, GRACE) || process.is_disturbed(from.before(GRACE), at)
    };
    match code {
        // Others held the key for so long.
        "AcquisitionTimeout" => true,
        "Aborted" => at >= run.began(Phase::Drain),
        "NetworkTimeout" | "ServiceUnavailable" | "RateLimited" => disturbed(began),
        "Lost" => disturbed(began.before(LONGEST_TTL)),
        // AuthFailed, FenceRegression, Internal, InvalidArgument: nothing here explains them.
        _ => false,
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, at, entry};
    use crate::event::{Entry, FaultKind};

    fn failed(millis: u64, code: &str) -> Entry {
        let (operation, code) = ("acquire".to_owned(), code.to_owned());
        let began = at(millis - 10);
        entry(millis, Event::Failed { operation, code, message: String::new(), began })
    }

    fn found(code: &str, millis: u64) -> Vec<Kind> {
        let run = ByHand::default().worker([failed(millis, code)]);
        let run = run.fault(FaultKind::ServerKilled, None, 20_000, 22_000);
        let run = run.fault(FaultKind::WorkerKilled, Some(1), 50_000, 51_000);
        run.phase(90_000, Phase::Drain).found(check)
    }

    #[test]
    fn an_outage_explains_errors_for_a_while() {
        assert_eq!(found("ServiceUnavailable", 21_000), []);
        assert_eq!(found("NetworkTimeout", 25_000), []);
        assert_eq!(found("RateLimited", 40_000), [Kind::Error]);
        assert_eq!(found("NetworkTimeout", 10_000), [Kind::Error]);
        assert_eq!(found("Lost", 28_000), []);
        assert_eq!(found("Lost", 40_000), [Kind::Error]);
        // The death of another worker explains nothing.
        assert_eq!(found("NetworkTimeout", 50_500), [Kind::Error]);
    }

    #[test]
    fn some_errors_are_never_explained_and_some_always() {
        for code in ["Internal", "InvalidArgument", "AuthFailed", "FenceRegression"] {
            assert_eq!(found(code, 21_000), [Kind::Error], "{code}");
        }
        assert_eq!(found("AcquisitionTimeout", 10_000), []);
        assert_eq!(found("Aborted", 80_000), [Kind::Error]);
        assert_eq!(found("Aborted", 90_001), []);
    }

    #[test]
    fn a_panic_is_reported() {
        let panicked = entry(5, Event::Panicked { message: "no".to_owned() });
        assert_eq!(ByHand::default().worker([panicked]).found(check), [Kind::Panic]);
    }
}

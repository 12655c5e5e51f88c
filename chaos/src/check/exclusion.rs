//! One holder at a time, and a holder that is told of its loss in time.

use std::time::Duration;

use super::run::{Hold, Run};
use super::violation::{Kind, Violation};
use crate::clock::Moment;
use crate::event::How;

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// How long after the grant of a successor a loss was signalled, or the work of a term stopped.
    pub(crate) latest_end: Duration,
    /// Holds whose end came after the grant of a successor, because their process was paused.
    pub(crate) outlived: usize,
}

/// How long after its cause a signal may be noted, on a machine that is busy.
pub(crate) const SLACK: Duration = Duration::from_millis(100);

/// Checks, for each hold, the first grant of a higher fence: nobody was verified to hold the key after
/// it, nobody relied on a lease beyond it, and who held the key before was told.
pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> Figures {
    let mut figures = Figures::default();
    for holds in run.by_key().values() {
        for_each_successor(holds, |hold, next| {
            if let Some(next) = next {
                one_holder(run, hold, next, found);
            }
            end_in_time(run, hold, next, &mut figures, found);
        });
    }
    figures
}

/// Calls `with` for each hold, with the first that was granted among those of higher fences.
fn for_each_successor<'a>(holds: &[&'a Hold], mut with: impl FnMut(&'a Hold, Option<&'a Hold>)) {
    let mut first: Option<&Hold> = None;
    for same_fence in holds.chunk_by(|a, b| a.fence == b.fence).rev() {
        same_fence.iter().for_each(|hold| with(hold, first));
        let granted = same_fence.iter().copied().chain(first).min_by_key(|hold| hold.granted);
        first = granted;
    }
}

fn one_holder(run: &Run, hold: &Hold, next: &Hold, found: &mut Vec<Violation>) {
    let Some(claim) = hold.claim else { return };
    let relied_until = claim.until.min(hold.end().unwrap_or(claim.until));
    if claim.verified > next.granted || relied_until > next.granted {
        let text = format!(
            "{} held {} and relied on it for {:?} after {} was granted",
            describe(run, hold),
            hold.key,
            relied_until.max(claim.verified).since(next.granted),
            describe(run, next)
        );
        found.push(Violation::new(Kind::TwoHolders, next.granted, text));
    }
}

fn end_in_time(
    run: &Run,
    hold: &Hold,
    next: Option<&Hold>,
    figures: &mut Figures,
    found: &mut Vec<Violation>,
) {
    let process = run.process(hold);
    let Some(end) = hold.end().or(process.killed) else {
        let text = format!("{} of {} has no end", describe(run, hold), hold.key);
        return found.push(Violation::new(Kind::Leak, hold.granted, text));
    };
    // A paused process cannot be told before it goes on.
    let late = |since: Moment| process.paused.outside(since, end);
    let kind = if hold.how == How::Lead { Kind::LateStop } else { Kind::LateLoss };
    if let Some(next) = next.filter(|next| next.granted < end) {
        figures.outlived += 1;
        figures.latest_end = figures.latest_end.max(late(next.granted));
        if late(next.granted) > SLACK {
            let text = format!(
                "{} of {} ended {:?} after {} was granted",
                describe(run, hold),
                hold.key,
                late(next.granted),
                describe(run, next)
            );
            found.push(Violation::new(kind, next.granted, text));
        }
    }
    // The work of a leader ends by its own deadline, whether or not there is a successor.
    let lease_end = hold.claim.map_or(hold.granted, |claim| claim.until);
    if hold.how == How::Lead && hold.end().is_some() && late(lease_end) > SLACK {
        let text = format!(
            "{} of {} worked for {:?} after its lease",
            describe(run, hold),
            hold.key,
            late(lease_end)
        );
        found.push(Violation::new(Kind::LateStop, lease_end, text));
    }
}

fn describe(run: &Run, hold: &Hold) -> String {
    format!("fence {} of worker {}", hold.fence, run.process(hold).name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, granted, holding, led, let_go, lost, stalled};
    use crate::event::FaultKind;

    #[test]
    fn one_after_the_other_is_fine() {
        let first = [granted(0, 10, "k", 1, 2000), holding(0, 900, 2900), let_go(0, 1000)];
        let second = [granted(0, 1001, "k", 2, 3000), lost(0, 3000)];
        let third = [granted(0, 3001, "k", 3, 5000), let_go(0, 3002)];
        let run = ByHand::default().worker(first).worker(second).worker(third);
        assert_eq!(run.found(check), []);
    }

    #[test]
    fn a_verified_holder_after_a_grant_to_another_is_reported() {
        let first = [granted(0, 10, "k", 1, 1000), holding(0, 1500, 2500), let_go(0, 1501)];
        let second = [granted(0, 1499, "k", 2, 3000), let_go(0, 2900)];
        let run = ByHand::default().worker(first).worker(second);
        assert_eq!(run.found(check), [Kind::TwoHolders]);
    }

    #[test]
    fn a_holder_that_relies_on_its_lease_beyond_a_grant_is_reported() {
        let first = [granted(0, 10, "k", 1, 2000)];
        let second = [granted(0, 1900, "k", 2, 3000), let_go(0, 2000)];
        let run = ByHand::default().worker(first).worker(second);
        let run = run.fault(FaultKind::WorkerKilled, Some(0), 500, 600);
        assert_eq!(run.found(check), [Kind::TwoHolders]);
    }

    #[test]
    fn a_guard_that_is_received_after_its_lease_claims_nothing() {
        let first = [granted(0, 4000, "k", 1, 4000), let_go(0, 4001)];
        let second = [granted(0, 2000, "k", 2, 3000), let_go(0, 2500)];
        let run = ByHand::default().worker(first).worker(second);
        let run = run.fault(FaultKind::WorkerStopped, Some(0), 10, 3999);
        assert_eq!(run.found(check), []);
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let first = [granted(0, 10, "k", 1, 2000), let_go(0, 1000)];
        let second = [granted(0, 20, "l", 2, 2000), let_go(0, 1000)];
        assert_eq!(ByHand::default().worker(first).worker(second).found(check), []);
    }

    #[test]
    fn a_late_loss_is_reported() {
        let first = [granted(0, 10, "k", 1, 1000), lost(0, 1201)];
        let second = [granted(0, 1100, "k", 2, 3000), let_go(0, 1300)];
        let run = ByHand::default().worker(first).worker(second);
        assert_eq!(run.found(check), [Kind::LateLoss]);
    }

    #[test]
    fn a_loss_that_a_pause_delayed_is_fine() {
        let first = || [granted(0, 10, "k", 1, 1000), lost(0, 4001)];
        let second = || [granted(0, 1100, "k", 2, 3000), let_go(0, 1300)];
        let run = ByHand::default().worker(first()).worker(second());
        let run = run.fault(FaultKind::WorkerStopped, Some(0), 500, 4000);
        assert_eq!(run.found(check), []);
        // The machine did not run it.
        let [granted, lost] = first();
        let run = ByHand::default().worker([granted, stalled(3999, 3000), lost]).worker(second());
        assert_eq!(run.found(check), []);
    }

    #[test]
    fn a_hold_without_end_is_reported_unless_its_process_was_killed() {
        let first = || [granted(0, 10, "k", 1, 1000)];
        assert_eq!(ByHand::default().worker(first()).found(check), [Kind::Leak]);
        let killed = ByHand::default().worker(first());
        let killed = killed.fault(FaultKind::WorkerKilled, Some(0), 20, 30);
        assert_eq!(killed.found(check), []);
    }

    #[test]
    fn work_after_the_lease_of_a_leader_is_reported() {
        let work = [led(0, 10, 1, 2000), let_go(0, 2101)];
        assert_eq!(ByHand::default().worker(work).found(check), [Kind::LateStop]);
        let work = [led(0, 10, 1, 2000), let_go(0, 2050)];
        assert_eq!(ByHand::default().worker(work).found(check), []);
        let work = [led(0, 10, 1, 2000), holding(0, 1900, 3900), let_go(0, 2500)];
        assert_eq!(ByHand::default().worker(work).found(check), []);
    }

    #[test]
    fn two_leaders_at_a_time_are_reported() {
        let first = [led(0, 10, 1, 2000), holding(0, 1900, 3900), let_go(0, 2500)];
        let second = [led(0, 2000, 2, 4000), let_go(0, 3000)];
        let run = ByHand::default().worker(first).worker(second);
        assert_eq!(run.found(check), [Kind::TwoHolders, Kind::LateStop]);
    }
}

//! Nothing stays locked or queued, and locks work again after a fault.

use std::collections::BTreeMap;
use std::time::Duration;

use super::run::{Fault, Run};
use super::violation::{Kind, Violation};
use crate::clock::Moment;
use crate::event::{Event, FaultKind, Phase};
use crate::keys::is_election;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// The longest time without a grant of a lock, in the whole run and after the last fault.
    pub(crate) longest_gap: Duration,
    pub(crate) longest_calm_gap: Duration,
    /// The longest time from the end of the work of one leader to the start of the next one, for the
    /// election with many candidates.
    pub(crate) longest_vacancy: Duration,
    /// The longest time from the end of a fault to the next grant, for each kind of outage.
    pub(crate) recovery: BTreeMap<FaultKind, Duration>,
    /// Grants per second before the first fault, and after the last one.
    pub(crate) rate_before: f64,
    pub(crate) rate_after: f64,
    /// The longest time until a key could be taken after all workers had ended.
    pub(crate) longest_probe: Duration,
}

/// A detached lease of 3 s, the tolerance of 1 s, and a hold of 2.5 s after it, on a busy machine.
const LONGEST_CALM_GAP: Duration = Duration::from_secs(8);
/// A lease that nobody released: 3 s and the tolerance of 1 s, on a busy machine.
const LONGEST_PROBE: Duration = Duration::from_secs(5);
/// A wait of 900 ms between attempts, and a lease that stood through the outage.
const LONGEST_RECOVERY: Duration = Duration::from_secs(6);
/// The part of the grants per second that must come back after the faults, on a busy machine.
const LEAST_RATE: f64 = 0.5;
/// From the start of a phase, until all processes work at their pace.
const SETTLING: Duration = Duration::from_secs(3);

pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> Figures {
    let mut figures = Figures::default();
    gaps(run, &mut figures, found);
    recovery(run, &mut figures, found);
    throughput(run, &mut figures, found);
    vacancies(run, &mut figures);
    drained(run, found);
    probes(run, &mut figures, found);
    figures
}

fn gaps(run: &Run, figures: &mut Figures, found: &mut Vec<Violation>) {
    let (warm, calm) = (run.began(Phase::WarmUp), run.began(Phase::Calm));
    let end = run.began(Phase::Drain);
    for (key, holds) in run.by_key() {
        let mut grants: Vec<_> = holds.iter().map(|hold| hold.granted).collect();
        grants.sort_unstable();
        let longest = |from: Moment| {
            let times = grants.iter().copied().filter(|at| (from..end).contains(at));
            let times: Vec<_> = [from].into_iter().chain(times).chain([end]).collect();
            let gaps = times.windows(2).map(|pair| pair[1].since(pair[0]));
            gaps.max().unwrap_or_default()
        };
        if !is_election(key) {
            figures.longest_gap = figures.longest_gap.max(longest(warm));
            figures.longest_calm_gap = figures.longest_calm_gap.max(longest(calm));
            if longest(calm) > LONGEST_CALM_GAP {
                let text = format!("{key} was not granted for {:?} without a fault", longest(calm));
                found.push(Violation::new(Kind::Stuck, calm, text));
            }
        }
    }
}

fn recovery(run: &Run, figures: &mut Figures, found: &mut Vec<Violation>) {
    let mut grants: Vec<_> = run.holds.iter().map(|hold| hold.granted).collect();
    grants.sort_unstable();
    for fault in run.faults.iter().filter(|fault| fault.kind.is_outage()) {
        let next = grants.partition_point(|at| *at < fault.ended);
        let Some(granted) = grants.get(next) else { continue };
        let took = granted.since(fault.ended);
        // The next fault may be faster.
        let disturbed = |other: &Fault| {
            other.kind.is_outage() && fault.ended < other.began && other.began < *granted
        };
        if run.faults.iter().any(disturbed) {
            continue;
        }
        let longest = figures.recovery.entry(fault.kind).or_default();
        *longest = took.max(*longest);
        if took > LONGEST_RECOVERY {
            let text = format!("no grant for {took:?} after {:?}", fault.kind);
            found.push(Violation::new(Kind::Recovery, fault.ended, text));
        }
    }
}

fn throughput(run: &Run, figures: &mut Figures, found: &mut Vec<Violation>) {
    let rate = |from: Moment, to: Moment| {
        let from = from + SETTLING;
        let granted = run.holds.iter().filter(|hold| (from..to).contains(&hold.granted)).count();
        granted as f64 / to.since(from).as_secs_f64().max(0.001)
    };
    figures.rate_before = rate(run.began(Phase::WarmUp), run.began(Phase::Faults));
    figures.rate_after = rate(run.began(Phase::Calm), run.began(Phase::Drain));
    if figures.rate_after < figures.rate_before * LEAST_RATE {
        let text = format!("{:.0}/s after {:.0}/s", figures.rate_after, figures.rate_before);
        found.push(Violation::new(Kind::Recovery, run.began(Phase::Calm), text));
    }
}

fn vacancies(run: &Run, figures: &mut Figures) {
    for (key, mut terms) in run.by_key() {
        if key.ends_with(":contested") {
            terms.sort_by_key(|term| term.granted);
            for pair in terms.windows(2) {
                let killed = pair[0].claim.map(|claim| claim.verified);
                let ended = pair[0].end().or(killed).unwrap_or(pair[0].granted);
                figures.longest_vacancy = figures.longest_vacancy.max(pair[1].granted.since(ended));
            }
        }
    }
}

/// Each worker that was not killed has ended in order.
fn drained(run: &Run, found: &mut Vec<Violation>) {
    for process in run.processes.iter().filter(|process| process.killed.is_none()) {
        let mut ends = process.entries.iter().filter_map(|entry| match entry.event {
            Event::Drained { waiters, terms } => Some((waiters, terms)),
            _ => None,
        });
        let text = match ends.next() {
            Some((0, 0)) => continue,
            Some((waiters, terms)) => format!("{waiters} waiters and {terms} terms are left"),
            None => "it did not end".to_owned(),
        };
        let text = format!("worker {}: {text}", process.name());
        found.push(Violation::new(Kind::Stuck, run.began(Phase::Drain), text));
    }
}

fn probes(run: &Run, figures: &mut Figures, found: &mut Vec<Violation>) {
    for entry in &run.parent {
        let Event::Probed { key, micros, granted } = &entry.event else { continue };
        let took = Duration::from_micros(*micros);
        figures.longest_probe = figures.longest_probe.max(took);
        if !granted || took > LONGEST_PROBE {
            let text = format!("{key} was not free for {took:?} after all workers had ended");
            found.push(Violation::new(Kind::Stuck, entry.at, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, entry, granted, let_go};
    use crate::event::Entry;

    /// Grants every 100 ms, except from `from` to `to`.
    fn grants(from: u64, to: u64) -> Vec<Entry> {
        let moments = (1..600).map(|number| number * 100);
        let moments = moments.filter(|moment| !(from..to).contains(moment));
        let hold =
            |moment| [granted(moment, moment, "k", moment, moment + 9), let_go(moment, moment + 1)];
        let end = entry(59_990, Event::Drained { waiters: 0, terms: 0 });
        moments.flat_map(hold).chain([end]).collect()
    }

    fn phases(grants: Vec<Entry>) -> ByHand {
        let run = ByHand::default().worker(grants).phase(0, Phase::WarmUp);
        let run = run.phase(10_000, Phase::Faults).phase(30_000, Phase::Calm);
        run.phase(59_900, Phase::Drain)
    }

    #[test]
    fn steady_grants_are_fine() {
        assert_eq!(phases(grants(0, 0)).found(check), []);
    }

    #[test]
    fn a_key_that_stays_locked_after_the_faults_is_reported() {
        assert_eq!(phases(grants(31_000, 40_000)).found(check), [Kind::Stuck]);
        assert_eq!(phases(grants(15_000, 26_000)).found(check), []);
    }

    #[test]
    fn a_slow_recovery_is_reported() {
        let run = phases(grants(15_000, 26_000));
        let run = run.fault(FaultKind::AllSilent, None, 15_000, 19_000);
        assert_eq!(run.found(check), [Kind::Recovery]);
    }

    #[test]
    fn fewer_grants_than_before_are_reported() {
        let slow = grants(0, 0).into_iter().filter(|entry| {
            entry.at.0 < 30_000_000 || entry.at.0 / 100_000 % 3 == 0 || entry.at.0 > 59_900_000
        });
        assert_eq!(phases(slow.collect()).found(check), [Kind::Recovery]);
    }

    #[test]
    fn waiters_that_are_left_are_reported() {
        let mut left = grants(0, 0);
        left.pop();
        assert_eq!(phases(left.clone()).found(check), [Kind::Stuck]);
        left.push(entry(59_990, Event::Drained { waiters: 1, terms: 0 }));
        assert_eq!(phases(left).found(check), [Kind::Stuck]);
    }

    #[test]
    fn a_key_that_is_not_free_at_the_end_is_reported() {
        let probed = |granted| {
            let probed = Event::probed("k".to_owned(), Duration::from_secs(1), granted);
            phases(grants(0, 0)).parent([entry(60_000, probed)]).found(check)
        };
        assert_eq!(probed(true), []);
        assert_eq!(probed(false), [Kind::Stuck]);
    }
}

//! Observers of an election are told of every vacancy that lasts, and never of a lower fence.

use std::collections::HashMap;
use std::time::Duration;

use super::run::{Hold, Process, Run};
use super::violation::{Kind, Violation};
use crate::clock::Moment;
use crate::event::{Event, Leader};
use crate::keys::is_election;

/// How many pairs of a vacancy and an observer were checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) seen_vacancies: usize,
}

/// A vacancy of this length is seen if notifications arrive, and so is one of any key that ends by
/// time.
const NOTIFIED: Duration = Duration::from_millis(500);
/// As long as it takes without: until the lease that was last seen is over by time. That is a TTL,
/// and the tolerance.
const UNNOTIFIED: Duration = Duration::from_millis(3_300);
/// Notifications may be away for as long as this after an outage.
const RESUBSCRIBED: Duration = Duration::from_secs(35);
/// A lease that was not released ends after the TTL from its last renewal, and the tolerance.
const EXPIRY: Duration = Duration::from_millis(3_100);

pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> Figures {
    let mut figures = Figures::default();
    let names: HashMap<_, _> = run
        .holds
        .iter()
        .filter(|hold| is_election(&hold.key))
        .map(|hold| ((&*hold.key, hold.fence), run.process(hold).name()))
        .collect();
    for process in &run.processes {
        monotonic(process, &names, found);
    }
    for (key, terms) in run.by_key().into_iter().filter(|(key, _)| is_election(key)) {
        for pair in terms.windows(2) {
            let [term, next] = pair else { continue };
            let Some((from, to)) = vacancy(run, term, next) else { continue };
            for process in &run.processes {
                if is_watching(run, process, from, to) {
                    figures.seen_vacancies += 1;
                    seen(process, key, term.fence, to, found);
                }
            }
        }
    }
    figures
}

/// Each observer hears of rising fences, and of the candidate that has the fence.
fn monotonic(process: &Process, names: &HashMap<(&str, u64), String>, found: &mut Vec<Violation>) {
    let mut highest = HashMap::new();
    for entry in &process.entries {
        let Event::Observed { key, leader: Leader::Led { fence, candidate } } = &entry.event else {
            continue;
        };
        let highest = highest.entry(key).or_insert(0);
        if fence < highest {
            let text = format!("{key} was led by {fence} after {highest}");
            found.push(Violation::new(Kind::Observer, entry.at, text));
        }
        *highest = (*fence).max(*highest);
        let name = names.get(&(key.as_str(), *fence));
        if let (Some(told), Some(name)) = (candidate, name)
            && told != name
        {
            let text = format!("{key} was led by {told} with the fence of {name}");
            found.push(Violation::new(Kind::Observer, entry.at, text));
        }
    }
}

/// When nobody led between two terms, for certain.
fn vacancy(run: &Run, term: &Hold, next: &Hold) -> Option<(Moment, Moment)> {
    let (process, of_next) = (run.process(term), run.process(next));
    let released = process.entries.iter().find(|entry| {
        matches!(&entry.event, Event::TermReleased { key } if **key == *term.key)
            && term.let_go.is_some_and(|let_go| let_go <= entry.at)
            && entry.at < next.granted
    });
    let lease_end = term.claim.map_or(term.granted, |claim| claim.until);
    let from = released.map_or(lease_end + EXPIRY, |entry| entry.at);
    // A pause makes the moment at which the next request was sent too late.
    let exact = of_next.paused.within(next.sent.before(NOTIFIED), next.granted).is_zero();
    (exact && from < next.sent).then_some((from, next.sent))
}

/// Whether an observer must have heard of a vacancy by its end.
fn is_watching(run: &Run, process: &Process, from: Moment, to: Moment) -> bool {
    let least = if run.is_disturbed(from, to, RESUBSCRIBED) { UNNOTIFIED } else { NOTIFIED };
    let lives = process.began.0 + 1_000_000 < from.0 && process.killed.is_none_or(|at| to < at);
    // What happened before it had this time does not matter.
    let since = from.max(to.before(least));
    lives
        && to.since(from) > least
        && !run.is_disturbed(since, to, Duration::ZERO)
        && process.paused.within(since, to) < Duration::from_millis(100)
}

/// Checks what an observer knew when a vacancy ended.
fn seen(process: &Process, key: &str, fence: u64, to: Moment, found: &mut Vec<Violation>) {
    let mut known = None;
    for entry in process.entries.iter().take_while(|entry| entry.at <= to) {
        if let Event::Observed { key: observed, leader } = &entry.event
            && observed == key
        {
            known = Some(leader);
        }
    }
    if let Some(Leader::Led { fence: led, .. }) = known
        && *led <= fence
    {
        let text =
            format!("worker {} was not told that {fence} leads {key} no more", process.name());
        found.push(Violation::new(Kind::Observer, to, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, entry, led, let_go};
    use crate::event::Entry;

    const KEY: &str = "run:leader:contested";

    fn told(millis: u64, leader: Leader) -> Entry {
        entry(millis, Event::Observed { key: KEY.to_owned(), leader })
    }

    fn led_by(millis: u64, fence: u64, candidate: Option<&str>) -> Entry {
        told(millis, Leader::Led { fence, candidate: candidate.map(str::to_owned) })
    }

    /// A term that was released at 5 s, and the next one, which begins at `next`.
    fn terms(next: u64, observed: impl IntoIterator<Item = Entry>) -> ByHand {
        let released = entry(5_001, Event::TermReleased { key: KEY.to_owned() });
        let leader = [led(0, 3_000, 1, 5_500), let_go(0, 5_000), released, led(1, next, 2, 9_000)];
        let observer = [entry(1, Event::Started { seed: 1 })].into_iter().chain(observed);
        ByHand::default().worker(leader).worker(observer)
    }

    #[test]
    fn a_vacancy_must_be_seen() {
        let unseen = [led_by(3_100, 1, None), led_by(7_000, 2, None)];
        assert_eq!(terms(6_000, unseen).found(check), [Kind::Observer]);
        let seen = [led_by(3_100, 1, None), told(5_010, Leader::Vacant), led_by(7_000, 2, None)];
        assert_eq!(terms(6_000, seen).found(check), []);
        let unknown = [led_by(3_100, 1, None), told(5_010, Leader::Unknown)];
        assert_eq!(terms(6_000, unknown).found(check), []);
    }

    #[test]
    fn a_short_vacancy_may_be_missed() {
        let unseen = [led_by(3_100, 1, None), led_by(7_000, 2, None)];
        assert_eq!(terms(5_400, unseen).found(check), []);
    }

    #[test]
    fn no_lower_fence_and_no_false_name_is_told() {
        let back = [led_by(3_100, 2, None), led_by(3_200, 1, None)];
        assert_eq!(terms(5_400, back).found(check), [Kind::Observer]);
        let name = |name| [led_by(3_100, 1, Some(name))];
        assert_eq!(terms(5_400, name("0-0")).found(check), []);
        assert_eq!(terms(5_400, name("1-0")).found(check), [Kind::Observer]);
    }
}

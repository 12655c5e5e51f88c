//! Fences rise with every grant of a key.

use std::time::Duration;

use super::run::{Hold, Run};
use super::violation::{Kind, Violation};
use crate::event::How;

/// The library measures when a request was sent. A pause in the middle makes that too late.
const MEASURED_WITHIN: Duration = Duration::from_secs(1);

/// Checks that no fence was granted twice, and that no grant whose request was sent after another
/// grant was received has a lower fence.
pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) {
    for holds in run.by_key().values() {
        let grants = holds.iter().copied().filter(|hold| hold.how != How::Adopt);
        let grants: Vec<_> = grants.collect();
        repeated(&grants, found);
        order(run, grants, found);
    }
}

fn repeated(grants: &[&Hold], found: &mut Vec<Violation>) {
    for pair in grants.windows(2) {
        let [first, second] = pair else { continue };
        if first.fence == second.fence {
            let text = format!("fence {} of {} was granted twice", first.fence, first.key);
            found.push(Violation::new(Kind::Fence, second.granted, text));
        }
    }
}

fn order(run: &Run, mut grants: Vec<&Hold>, found: &mut Vec<Violation>) {
    let mut by_sent = grants.clone();
    by_sent.sort_by_key(|hold| hold.sent);
    grants.sort_by_key(|hold| hold.granted);
    let (mut received, mut highest) = (grants.into_iter().peekable(), 0);
    for hold in by_sent {
        while let Some(earlier) = received.next_if(|earlier| earlier.granted < hold.sent) {
            highest = highest.max(earlier.fence);
        }
        let process = run.process(hold);
        let measured = hold.sent.before(MEASURED_WITHIN);
        if hold.fence <= highest && process.paused.within(measured, hold.granted).is_zero() {
            let text = format!(
                "{} was granted with fence {} after {highest} was received",
                hold.key, hold.fence
            );
            found.push(Violation::new(Kind::Fence, hold.granted, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, granted, let_go, stalled};

    #[test]
    fn rising_fences_are_fine_and_may_skip() {
        let grants = [granted(0, 10, "k", 1, 20), granted(1, 30, "k", 5, 40)];
        assert_eq!(ByHand::default().worker(grants).found(check), []);
    }

    #[test]
    fn a_fence_that_is_granted_twice_is_reported() {
        let first = [granted(0, 10, "k", 1, 20), let_go(0, 15)];
        let second = [granted(0, 10, "k", 1, 40)];
        assert_eq!(ByHand::default().worker(first).worker(second).found(check), [Kind::Fence]);
    }

    #[test]
    fn a_lower_fence_is_reported_if_its_request_was_sent_later() {
        let first = || [granted(0, 10, "k", 7, 20)];
        let later = [granted(0, 30, "k", 6, 40)];
        assert_eq!(ByHand::default().worker(first()).worker(later).found(check), [Kind::Fence]);
        // Sent at 9, and received late.
        let mut earlier = granted(0, 30, "k", 6, 40);
        if let crate::event::Event::Granted { sent, .. } = &mut earlier.event {
            *sent = crate::check::by_hand::at(9);
        }
        assert_eq!(ByHand::default().worker(first()).worker([earlier]).found(check), []);
    }

    #[test]
    fn a_pause_makes_the_time_of_the_request_unknown() {
        let first = [granted(0, 10, "k", 7, 20)];
        let later = [stalled(29, 25), granted(0, 30, "k", 6, 40)];
        assert_eq!(ByHand::default().worker(first).worker(later).found(check), []);
    }
}

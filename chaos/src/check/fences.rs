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

//! The fenced register refuses every write of a holder that is too late.

use std::collections::HashMap;

use super::run::Run;
use super::violation::{Kind, Violation};
use crate::event::Event;

/// How many writes there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
}

pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> Figures {
    let (mut figures, mut highest) = (Figures::default(), HashMap::new());
    for entry in &run.parent {
        let Event::Write { key, fence, accepted } = &entry.event else { continue };
        let highest = highest.entry(key).or_insert(0);
        let late = fence < highest;
        if *accepted == late {
            let did = if *accepted { "accepted" } else { "refused" };
            let text = format!("a write to {key} with fence {fence} was {did} after {highest}");
            found.push(Violation::new(Kind::Register, entry.at, text));
        }
        figures.accepted += usize::from(*accepted);
        figures.refused += usize::from(!*accepted);
        *highest = (*fence).max(*highest);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::by_hand::{ByHand, entry};

    fn write(fence: u64, accepted: bool) -> crate::event::Entry {
        entry(1, Event::Write { key: "k".to_owned(), fence, accepted })
    }

    #[test]
    fn a_late_write_must_be_refused_and_a_good_one_accepted() {
        let good = [write(1, true), write(1, true), write(3, true), write(2, false)];
        assert_eq!(ByHand::default().parent(good).found(check), []);
        let late = [write(2, true), write(1, true)];
        assert_eq!(ByHand::default().parent(late).found(check), [Kind::Register]);
        let refused = [write(2, true), write(2, false)];
        assert_eq!(ByHand::default().parent(refused).found(check), [Kind::Register]);
    }
}

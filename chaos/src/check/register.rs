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

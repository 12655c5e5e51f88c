//! Histories that are written by hand, for tests of the checks. Times are in milliseconds.

use std::time::Duration;

use super::run::{Part, Run};
use super::violation::{Kind, Violation};
use crate::clock::Moment;
use crate::event::{Entry, Event, FaultKind, How, Phase};

/// A history of one worker, with the number `0`, `1` and so on.
#[derive(Default)]
pub(crate) struct ByHand {
    parent: Vec<Entry>,
    parts: Vec<Part>,
    faults: u64,
}

pub(crate) const fn at(millis: u64) -> Moment {
    Moment(millis * 1_000)
}

pub(crate) fn entry(millis: u64, event: Event) -> Entry {
    Entry { at: at(millis), event }
}

/// A grant of `key`, which the holder relies on until `until`.
pub(crate) fn granted(hold: u64, millis: u64, key: &str, fence: u64, until: u64) -> Entry {
    let (key, id, how) = (key.to_owned(), String::new(), How::Acquire);
    let (sent, until) = (at(millis.saturating_sub(1)), at(until));
    entry(millis, Event::Granted { hold, key, fence, id, how, sent, until })
}

/// A term: as `granted`.
pub(crate) fn led(hold: u64, millis: u64, fence: u64, until: u64) -> Entry {
    let mut entry = granted(hold, millis, "run:leader:contested", fence, until);
    if let Event::Granted { how, .. } = &mut entry.event {
        *how = How::Lead;
    }
    entry
}

pub(crate) fn holding(hold: u64, millis: u64, until: u64) -> Entry {
    entry(millis, Event::Holding { hold, until: at(until) })
}

pub(crate) fn lost(hold: u64, millis: u64) -> Entry {
    entry(millis, Event::Lost { hold })
}

pub(crate) fn let_go(hold: u64, millis: u64) -> Entry {
    entry(millis, Event::LetGo { hold })
}

impl ByHand {
    /// Adds a worker.
    pub(crate) fn worker(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        let worker = self.parts.len();
        let entries = entries.into_iter().collect();
        self.parts.push(Part { worker, incarnation: 0, entries });
        self
    }

    pub(crate) fn parent(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        self.parent.extend(entries);
        self
    }

    pub(crate) fn fault(
        mut self,
        kind: FaultKind,
        worker: Option<usize>,
        began: u64,
        ended: u64,
    ) -> Self {
        let number = self.faults;
        self.faults += 1;
        self.parent.push(entry(began, Event::Fault { number, kind, worker }));
        self.parent.push(entry(ended, Event::FaultEnded { number }));
        self
    }

    pub(crate) fn phase(self, millis: u64, phase: Phase) -> Self {
        self.parent([entry(millis, Event::Phase(phase))])
    }

    pub(crate) fn run(self) -> Run {
        Run::assemble(self.parent, self.parts)
    }

    /// The kinds of what a check finds.
    pub(crate) fn found<T>(self, check: impl Fn(&Run, &mut Vec<Violation>) -> T) -> Vec<Kind> {
        let mut found = Vec::new();
        check(&self.run(), &mut found);
        found.iter().map(|violation| violation.kind).collect()
    }
}

/// A stall that ended at `millis`.
pub(crate) fn stalled(millis: u64, length: u64) -> Entry {
    entry(millis, Event::stalled(Duration::from_millis(length)))
}

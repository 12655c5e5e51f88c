//! Memory and connections stay bounded.

use super::run::Run;
use super::violation::{Kind, Violation};
use crate::event::Event;

/// The most that a worker used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) memory_kib: u64,
    pub(crate) sockets: u64,
}

/// A worker of a debug build needs a third of it.
const MOST_MEMORY_KIB: u64 = 200 * 1_024;
/// 13 of Postgres, 12 of the register, and one of tokio, twice as many while connections are replaced.
const MOST_SOCKETS: u64 = 50;

pub(crate) fn check(run: &Run, found: &mut Vec<Violation>) -> Figures {
    let mut most = Figures::default();
    for entry in &run.parent {
        let Event::Sample { worker, memory_kib, sockets } = entry.event else { continue };
        most.memory_kib = most.memory_kib.max(memory_kib);
        most.sockets = most.sockets.max(sockets);
        if memory_kib > MOST_MEMORY_KIB || sockets > MOST_SOCKETS {
            let text = format!("worker {worker} uses {memory_kib} KiB and {sockets} sockets");
            found.push(Violation::new(Kind::Resources, entry.at, text));
        }
    }
    most
}

//! A run, put together from the histories of its processes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::spans::Spans;
use crate::clock::Moment;
use crate::event::{Entry, Event, FaultKind, How, Phase};

/// All that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// The incarnations of all workers.
    pub(crate) processes: Vec<Process>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) faults: Vec<Fault>,
    /// When the parent, and so the network and the register, did not run, or when the server did not
    /// answer a plain client.
    paused: Spans,
    pub(crate) phases: Vec<(Moment, Phase)>,
    /// The other events of the parent: writes, samples, probes.
    pub(crate) parent: Vec<Entry>,
}

/// One incarnation of a worker.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) worker: usize,
    pub(crate) incarnation: usize,
    /// Its first event.
    pub(crate) began: Moment,
    pub(crate) killed: Option<Moment>,
    /// When it was stopped, and when the machine did not run it.
    pub(crate) paused: Spans,
    /// Its events, except those of holds.
    pub(crate) entries: Vec<Entry>,
}

/// One hold of a guard or a term.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    /// The index of its process.
    pub(crate) process: usize,
    pub(crate) key: Arc<str>,
    pub(crate) fence: u64,
    pub(crate) how: How,
    pub(crate) sent: Moment,
    pub(crate) granted: Moment,
    /// When it was last verified, and until when it then relied on its lease. Never, if it was received
    /// after a pause that was longer than the lease.
    pub(crate) claim: Option<Claim>,
    pub(crate) lost: Option<Moment>,
    pub(crate) let_go: Option<Moment>,
}

/// What a holder was told: that it holds, and for how long at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) verified: Moment,
    pub(crate) until: Moment,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) worker: Option<usize>,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
}

/// The history of one incarnation of a worker.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) worker: usize,
    pub(crate) incarnation: usize,
    pub(crate) entries: Vec<Entry>,
}

impl Run {
    pub(crate) fn assemble(parent: Vec<Entry>, parts: Vec<Part>) -> Self {
        let mut run = Self::default();
        run.add_parent(parent);
        let mut keys = HashMap::new();
        for part in parts {
            run.add_worker(part, &mut keys);
        }
        run
    }

    fn add_parent(&mut self, entries: Vec<Entry>) {
        let (mut open, mut stalls) = (HashMap::new(), Vec::new());
        for entry in entries {
            let at = entry.at;
            match entry.event {
                Event::Fault { number, kind, worker } => {
                    open.insert(number, self.faults.len());
                    // Until its end is found, it lasts.
                    self.faults.push(Fault { kind, worker, began: at, ended: Moment(u64::MAX) });
                }
                Event::FaultEnded { number } => {
                    if let Some(fault) = open.get(&number) {
                        self.faults[*fault].ended = at;
                    }
                }
                Event::Phase(phase) => self.phases.push((at, phase)),
                Event::Stalled { micros } | Event::ServerSlow { micros } => {
                    stalls.push(stall(at, micros));
                }
                _ => self.parent.push(entry),
            }
        }
        self.paused = Spans::of(stalls);
    }

    fn add_worker(&mut self, part: Part, keys: &mut HashMap<String, Arc<str>>) {
        let Part { worker, incarnation, entries } = part;
        let of_it = |fault: &&Fault| fault.worker == Some(worker);
        let kills = self.faults.iter().filter(of_it);
        let mut kills = kills.filter(|fault| fault.kind == FaultKind::WorkerKilled);
        let killed = kills.nth(incarnation).map(|kill| kill.began);
        let pauses = [FaultKind::WorkerStopped, FaultKind::WorkerHesitates];
        let stops = self.faults.iter().filter(of_it).filter(|stop| pauses.contains(&stop.kind));
        let mut paused: Vec<_> = stops.map(|stop| (stop.began, stop.ended)).collect();
        let began = entries.first().map(|entry| entry.at).unwrap_or_default();

        let (process, mut holds) = (self.processes.len(), HashMap::new());
        let mut others = Vec::new();
        for entry in entries {
            let at = entry.at;
            match entry.event {
                Event::Granted { hold, key, fence, id: _, how, sent, until } => {
                    let key = keys.entry(key).or_insert_with_key(|key| key.as_str().into());
                    holds.insert(hold, self.holds.len());
                    self.holds.push(Hold {
                        process,
                        key: key.clone(),
                        fence,
                        how,
                        sent,
                        granted: at,
                        claim: (at < until).then_some(Claim { verified: at, until }),
                        lost: None,
                        let_go: None,
                    });
                }
                Event::Holding { hold, until } => {
                    if let Some(hold) = holds.get(&hold).map(|hold| &mut self.holds[*hold]) {
                        hold.claim = Some(Claim { verified: at, until });
                    }
                }
                Event::Lost { hold } => {
                    if let Some(hold) = holds.get(&hold).map(|hold| &mut self.holds[*hold]) {
                        hold.lost = hold.lost.or(Some(at));
                    }
                }
                Event::LetGo { hold } => {
                    if let Some(hold) = holds.remove(&hold).map(|hold| &mut self.holds[hold]) {
                        hold.let_go = Some(at);
                    }
                }
                Event::Stalled { micros } => paused.push(stall(at, micros)),
                _ => others.push(entry),
            }
        }
        let (paused, entries) = (Spans::of(paused), others);
        self.processes.push(Process { worker, incarnation, began, killed, paused, entries });
    }

    /// The holds of each key, by fence.
    pub(crate) fn by_key(&self) -> BTreeMap<&str, Vec<&Hold>> {
        let mut keys: BTreeMap<&str, Vec<&Hold>> = BTreeMap::new();
        for hold in &self.holds {
            keys.entry(&hold.key).or_default().push(hold);
        }
        keys.values_mut().for_each(|holds| holds.sort_by_key(|hold| (hold.fence, hold.granted)));
        keys
    }

    pub(crate) fn process(&self, hold: &Hold) -> &Process {
        &self.processes[hold.process]
    }

    /// When a phase began. The end of time if it did not.
    pub(crate) fn began(&self, phase: Phase) -> Moment {
        let found = self.phases.iter().find(|known| known.1 == phase);
        found.map_or(Moment(u64::MAX), |found| found.0)
    }

    /// Whether operations of all workers may fail within this time: because of an outage that lasted
    /// until `grace` before it, or because the machine did not run the parent or the server.
    pub(crate) fn is_disturbed(&self, from: Moment, to: Moment, grace: Duration) -> bool {
        let from = from.before(grace);
        let outages = self.faults.iter().filter(|fault| fault.kind.is_outage());
        outages.into_iter().any(|fault| fault.began <= to && from <= fault.ended)
            || self.paused.longest_within(from, to) > LONG_PAUSE
    }
}

impl Process {
    /// Whether requests may fail within this time because the process did not run.
    pub(crate) fn is_disturbed(&self, from: Moment, to: Moment) -> bool {
        self.paused.longest_within(from, to) > LONG_PAUSE
    }

    /// The name under which it is a candidate.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.worker, self.incarnation)
    }
}

impl Hold {
    /// When it ended, as far as it noted it.
    pub(crate) fn end(&self) -> Option<Moment> {
        [self.lost, self.let_go].into_iter().flatten().min()
    }
}

/// A part of a command timeout, and of a TTL, that is missing if the process does not run.
const LONG_PAUSE: Duration = Duration::from_millis(200);

fn stall(at: Moment, micros: u64) -> (Moment, Moment) {
    (at.before(Duration::from_micros(micros)), at)
}

//! What the tasks of a worker share, and the state of one task.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use syncguard::{CancellationToken, Error, LockGuard, LockManager, Term};
use tokio::time::{Instant, sleep};

use super::attempts::Attempts;
use super::hold::{Held, Hold};
use crate::clock::Moment;
use crate::defect::Defect;
use crate::event::{Event, How};
use crate::history::History;
use crate::keys::Keys;
use crate::register::Writer;

/// What all tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) locks: LockManager,
    pub(crate) keys: Keys,
    pub(crate) history: History,
    pub(crate) attempts: Attempts,
    pub(crate) register: u16,
    pub(crate) defect: Option<Defect>,
    pub(crate) stop: CancellationToken,
    pub(crate) holds: AtomicU64,
}

impl Worker {
    pub(crate) fn note(&self, event: Event) {
        self.history.note(event);
    }

    /// Notes an operation that failed.
    pub(crate) fn failed(&self, error: &Error, began: Moment) {
        self.note(Event::failed(error, began));
    }

    pub(crate) fn hold_guard(&self, guard: &LockGuard, how: How, began: Moment) -> Hold {
        let sent = self.attempts.sent(guard.id().fingerprint()).unwrap_or(began);
        self.hold(guard, how, sent.max(began))
    }

    pub(crate) fn hold_term(&self, term: &Term) -> Hold {
        // Nothing else of this worker asks for the key.
        let sent = self.attempts.sent(term.key().fingerprint()).unwrap_or_default();
        self.hold(term, How::Lead, sent)
    }

    fn hold(&self, held: &impl Held, how: How, sent: Moment) -> Hold {
        let number = self.holds.fetch_add(1, Ordering::Relaxed);
        let ignores_loss = self.defect == Some(Defect::HolderIgnoresLoss);
        Hold::begin(&self.history, number, held, how, sent, ignores_loss)
    }
}

/// One task of a worker.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) worker: Arc<Worker>,
    pub(crate) rng: Rng,
    writer: Writer,
}

impl Task {
    pub(crate) async fn new(worker: Arc<Worker>, number: u64) -> io::Result<Self> {
        let rng = Rng::with_seed(worker.seed.wrapping_add(number));
        let writer = Writer::connect(worker.register).await?;
        Ok(Self { worker, rng, writer })
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    /// Short, so that leases end within the faults.
    pub(crate) fn ttl(&mut self) -> Duration {
        self.millis(1_200..3_000)
    }

    /// Works under a guard, verifies it again and again, and writes to the register. False if the
    /// loss was signalled.
    pub(crate) async fn work(&mut self, guard: &LockGuard, hold: &Hold, length: Duration) -> bool {
        let (key, fence, _) = guard.names();
        let end = Instant::now() + length;
        let ignores_loss = self.worker.defect == Some(Defect::HolderIgnoresLoss);
        while Instant::now() < end {
            hold.claim(guard);
            let writes = self.rng.u8(..4) == 0;
            let pause = self.millis(10..60).min(end.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                () = guard.lost(), if !ignores_loss => {
                    hold.lost();
                    if self.rng.bool() {
                        // A late write, as of a holder that never noticed.
                        self.write(&key, fence).await;
                    }
                    return false;
                }
                () = async {
                    if writes {
                        self.write(&key, fence).await;
                    }
                    sleep(pause).await;
                } => {}
            }
        }
        true
    }

    /// Writes now and then, for a hold of a moment.
    pub(crate) async fn touch(&mut self, guard: &LockGuard, hold: &Hold) {
        if self.rng.u8(..8) == 0 {
            let (key, fence, _) = guard.names();
            tokio::select! {
                biased;
                () = guard.lost() => hold.lost(),
                () = self.write(&key, fence) => {}
            }
        }
    }

    async fn write(&mut self, key: &str, fence: u64) {
        // The register is in the parent: without it the run is over.
        drop(self.writer.write(key, fence).await);
    }
}

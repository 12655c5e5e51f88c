//! Does harm: to the network and the server in one lane, to the processes in another one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract_tests::forwarder::Silence;
use fastrand::Rng;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::crew::Crew;
use super::target::Target;
use crate::event::{Event, FaultKind};
use crate::history::History;
use crate::keys::Keys;
use crate::outcome::Outcome;
use crate::store::Store;

/// Notes faults, and does them.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    pub(crate) target: &'a Target,
    pub(crate) crew: &'a Crew,
    pub(crate) history: &'a History,
    pub(crate) keys: &'a Keys,
    pub(crate) next: AtomicU64,
}

/// Longer than any TTL of the workers.
const STOPPED: std::ops::Range<u64> = 3_200..5_500;

impl Faults<'_> {
    /// Disturbs the network and the server until then.
    pub(crate) async fn outside(&self, mut rng: Rng, until: Instant) -> Outcome {
        let kinds = kinds(self.target.store);
        // Each kind comes once before any comes again.
        let mut round = Vec::new();
        while Instant::now() < until {
            // A few pauses are long enough for everything to work as it should in between.
            let long = rng.u8(..5) == 0;
            sleep(millis(&mut rng, if long { 5_000..9_000 } else { 300..3_000 })).await;
            if round.is_empty() {
                round.clone_from(&kinds);
                rng.shuffle(&mut round);
            }
            let Some(kind) = round.pop() else { continue };
            let length = millis(&mut rng, 100..3_500);
            let number = self.begin(kind, None);
            self.disturb(kind, length).await?;
            self.end(number);
        }
        Ok(())
    }

    /// Kills and stops workers until then.
    pub(crate) async fn inside(&self, mut rng: Rng, until: Instant) -> Outcome {
        let size = self.crew.size().await;
        while Instant::now() < until {
            sleep(millis(&mut rng, 300..3_000)).await;
            let worker = rng.usize(..size);
            match rng.u8(..10) {
                0..4 => {
                    let number = self.begin(FaultKind::WorkerKilled, Some(worker));
                    self.crew.kill(worker).await?;
                    sleep(millis(&mut rng, 0..1_500)).await;
                    self.crew.replace(worker).await?;
                    self.end(number);
                }
                4..8 => {
                    let length = millis(&mut rng, STOPPED);
                    self.pause(FaultKind::WorkerStopped, worker, length).await?;
                }
                _ => {
                    let length = millis(&mut rng, 50..900);
                    self.pause(FaultKind::WorkerHesitates, worker, length).await?;
                }
            }
        }
        Ok(())
    }

    /// The negative control: deletes what nobody may delete.
    pub(crate) async fn delete_counters(&self) -> Outcome {
        let number = self.begin(FaultKind::CountersDeleted, None);
        self.target.delete_counters(self.keys).await?;
        self.end(number);
        Ok(())
    }

    async fn pause(&self, kind: FaultKind, worker: usize, length: Duration) -> Outcome {
        let number = self.begin(kind, Some(worker));
        self.crew.signal(worker, Signal::STOP).await?;
        sleep(length).await;
        self.crew.signal(worker, Signal::CONT).await?;
        self.end(number);
        Ok(())
    }

    async fn disturb(&self, kind: FaultKind, length: Duration) -> Outcome {
        let Target { forwarder, .. } = self.target;
        match kind {
            FaultKind::ServerKilled | FaultKind::ServerRestarted => {
                self.target.stop(kind == FaultKind::ServerRestarted).await?;
                sleep(length / 2).await;
                self.target.restart().await?;
            }
            FaultKind::ServerHangs => {
                // Docker cannot freeze a container on a machine that is too busy. Then nothing happens.
                if self.target.freeze().await.is_ok() {
                    sleep(length).await;
                    self.target.thaw().await?;
                }
            }
            FaultKind::ConnectionsCut => forwarder.cut(),
            FaultKind::ConnectionsRefused => {
                self.target.refuse(true);
                sleep(length).await;
                self.target.refuse(false);
            }
            FaultKind::OpenConnectionsSilent => {
                forwarder.silence_open();
                sleep(length).await;
                forwarder.close_silenced();
            }
            FaultKind::AllSilent => self.silence(Silence::Both, length).await,
            FaultKind::RequestsDropped => self.silence(Silence::Requests, length).await,
            FaultKind::RepliesDropped => self.silence(Silence::Replies, length).await,
            FaultKind::Slow => {
                forwarder.delay(length / 4);
                sleep(length).await;
                forwarder.delay(Duration::ZERO);
            }
            FaultKind::ScriptsFlushed => self.target.flush_scripts().await?,
            FaultKind::SessionsTerminated => self.target.terminate_sessions().await?,
            FaultKind::CountersDeleted
            | FaultKind::WorkerKilled
            | FaultKind::WorkerStopped
            | FaultKind::WorkerHesitates => {}
        }
        Ok(())
    }

    async fn silence(&self, silence: Silence, length: Duration) {
        let Target { forwarder, .. } = self.target;
        forwarder.silence(silence);
        sleep(length).await;
        forwarder.restore();
        forwarder.close_silenced();
    }

    fn begin(&self, kind: FaultKind, worker: Option<usize>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.history.note(Event::Fault { number, kind, worker });
        number
    }

    fn end(&self, number: u64) {
        self.history.note(Event::FaultEnded { number });
    }
}

/// What can be done to the network and to this server.
fn kinds(store: Store) -> Vec<FaultKind> {
    let mut kinds = vec![
        FaultKind::ServerHangs,
        FaultKind::ConnectionsCut,
        FaultKind::ConnectionsRefused,
        FaultKind::OpenConnectionsSilent,
        FaultKind::AllSilent,
        FaultKind::RequestsDropped,
        FaultKind::RepliesDropped,
        FaultKind::Slow,
    ];
    if store.persists() {
        kinds.extend([FaultKind::ServerKilled, FaultKind::ServerRestarted]);
    }
    match store {
        Store::Firestore => {}
        Store::Postgres => kinds.push(FaultKind::SessionsTerminated),
        Store::Redis => kinds.push(FaultKind::ScriptsFlushed),
    }
    kinds
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

//! Candidates and observers of the elections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use syncguard::{Backoff, Election, Jitter, Leadership, Result, Term};
use tokio::time::{Instant, sleep};

use super::hold::{Held, Hold};
use super::task::Worker;
use crate::clock::Moment;
use crate::event::{Event, Leader};
use crate::register::Writer;

/// Short, so that many terms end within the faults.
pub(crate) const TTL: Duration = Duration::from_secs(2);
/// Longer than an observer without notifications needs to see the vacancy.
const SOLO_PAUSE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Campaigns for the key that all workers contest. Every other worker uses the parts of `lead`.
pub(crate) async fn contest(worker: Arc<Worker>, in_parts: bool) {
    let election = candidate(&worker, worker.keys.contested(), PAUSE);
    if in_parts {
        campaign(&worker, &election).await;
    } else {
        lead(&worker, &election).await;
    }
}

/// Campaigns for a key for which nobody else does.
pub(crate) async fn alone(worker: Arc<Worker>) {
    let election = candidate(&worker, worker.keys.solo(), SOLO_PAUSE);
    lead(&worker, &election).await;
}

fn candidate(worker: &Worker, key: String, pause: Duration) -> Election {
    let election =
        worker.locks.election(key).ttl(TTL).pause(Backoff::fixed(pause).with_jitter(Jitter::None));
    election.candidate(&worker.name).cancel(worker.stop.clone())
}

async fn lead(worker: &Worker, election: &Election) {
    while !worker.stop.is_cancelled() {
        let began = Moment::now();
        let led = election.lead(async |term: Term| -> io::Result<()> {
            // Dropped when the work ends, in whatever way.
            let hold = worker.hold_term(&term);
            work(worker, &term, &hold, true).await
        });
        if let Err(error) = led.await {
            worker.failed(&error, began);
            sleep(PAUSE).await;
        }
    }
}

async fn campaign(worker: &Worker, election: &Election) {
    while !worker.stop.is_cancelled() {
        let began = Moment::now();
        if let Err(error) = one_term(worker, election).await
            && !worker.stop.is_cancelled()
        {
            worker.failed(&error, began);
        }
        sleep(PAUSE).await;
    }
}

async fn one_term(worker: &Worker, election: &Election) -> Result<()> {
    let term = election.campaign().await?;
    let mut hold = worker.hold_term(&term);
    tokio::select! {
        biased;
        () = term.lost() => hold.lost(),
        // The register has gone only if the run is over.
        _ = work(worker, &term, &hold, false) => {}
    }
    hold.let_go();
    term.resign().await.map(drop)
}

/// How the work of a term ends, if it is not dropped before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Returns,
    Fails,
    Resigns,
    /// It resigns, and goes on until it is dropped.
    IsDropped,
}

async fn work(worker: &Worker, term: &Term, hold: &Hold, led: bool) -> io::Result<()> {
    let (key, fence, _) = term.names();
    let mut rng = Rng::with_seed(worker.seed ^ fence);
    let ends = [End::Returns, End::Fails, End::Resigns, End::IsDropped];
    // Outside of `lead`, a resignation is the end of the term, whatever the work does.
    let end = ends[rng.usize(..if led { 4 } else { 2 })];
    let mut writer = Writer::connect(worker.register).await?;
    let until = Instant::now() + Duration::from_millis(rng.u64(20..2_500));
    let mut resigned = false;
    loop {
        hold.claim(term);
        if rng.u8(..4) == 0 {
            writer.write(&key, fence).await?;
        }
        let pause = Duration::from_millis(rng.u64(5..40));
        tokio::select! {
            () = term.ending(), if end != End::IsDropped => return Ok(()),
            () = sleep(pause) => {}
        }
        if Instant::now() < until || resigned {
            continue;
        }
        match end {
            End::Returns => return Ok(()),
            End::Fails => return Err(io::Error::other("it failed")),
            End::Resigns | End::IsDropped => {
                resigned = true;
                let term = term.clone();
                tokio::spawn(async move { drop(term.resign().await) });
            }
        }
    }
}

/// Notes who leads, for as long as the manager lives.
pub(crate) async fn observe(worker: Arc<Worker>, key: String) {
    let mut leaders = match worker.locks.election(key.as_str()).observe() {
        Ok(leaders) => leaders,
        Err(error) => return worker.failed(&error, Moment::now()),
    };
    while let Some(leadership) = leaders.next().await {
        let leader = match leadership {
            Leadership::Vacant => Leader::Vacant,
            Leadership::Led { fence, candidate, .. } => {
                Leader::Led { fence: fence.get(), candidate }
            }
            _ => Leader::Unknown,
        };
        worker.note(Event::Observed { key: key.clone(), leader });
    }
}

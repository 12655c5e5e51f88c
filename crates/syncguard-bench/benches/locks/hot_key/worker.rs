//! A child process with workers: each acquires the key, releases it, and repeats.

use std::time::{Duration, Instant};

use syncguard_bench::Outcome;

use super::Run;
use crate::contestant::Contestant;
use crate::processes::ready;
use crate::store::Store;

/// Returns one line per worker: the wait for each grant, in microseconds. The last grant came after
/// the end of the run, and does not count as a grant.
pub(crate) async fn run(arguments: &[String]) -> Outcome<Vec<String>> {
    let run = Run::from_arguments(arguments)?;
    let contestant = Store::parse(&run.url)?.contestant(&run.contestant, run.connections).await?;
    warm_up(&contestant, run.workers).await?;
    ready().await?;

    let start = Instant::now();
    let worker = |_| {
        let (contestant, key) = (contestant.clone(), run.key.clone());
        tokio::spawn(async move { work(&contestant, &key, start, run.time).await })
    };
    let workers: Vec<_> = (0..run.workers).map(worker).collect();
    let mut lines = Vec::new();
    for worker in workers {
        let waits: Vec<String> = worker.await??.iter().map(ToString::to_string).collect();
        lines.push(waits.join(" "));
    }
    Ok(lines)
}

/// Opens the connections before the measurement.
async fn warm_up(contestant: &Contestant, workers: usize) -> Outcome {
    let process = std::process::id();
    let worker = |worker| {
        let contestant = contestant.clone();
        tokio::spawn(
            async move { contestant.cycle(format!("bench:warm:{process}:{worker}")).await },
        )
    };
    let workers: Vec<_> = (0..workers).map(worker).collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn work(
    contestant: &Contestant,
    key: &str,
    start: Instant,
    time: Duration,
) -> Outcome<Vec<u128>> {
    let mut waits = Vec::new();
    loop {
        let call = Instant::now();
        let release = contestant.acquire(key.to_owned()).await?;
        waits.push(call.elapsed().as_micros());
        let over = start.elapsed() >= time;
        release.await?;
        if over {
            return Ok(waits);
        }
    }
}

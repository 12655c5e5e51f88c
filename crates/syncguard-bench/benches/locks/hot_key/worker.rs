//! A process full of workers: each takes the key, gives it back, and asks again.

use std::time::{Duration, Instant};

use syncguard_bench::Outcome;

use super::Turn;
use crate::contestant::Contestant;
use crate::processes::ready;
use crate::store::Store;

/// A line for each worker: how long it waited for each of its grants, in microseconds. The last one
/// came after the time was up, and is not to be counted as a grant.
pub(crate) async fn run(arguments: &[String]) -> Outcome<Vec<String>> {
    let turn = Turn::from_arguments(arguments)?;
    let contestant =
        Store::parse(&turn.url)?.contestant(&turn.contestant, turn.connections).await?;
    warm_up(&contestant, turn.workers).await?;
    ready().await?;

    let start = Instant::now();
    let worker = |_| {
        let (contestant, key) = (contestant.clone(), turn.key.clone());
        tokio::spawn(async move { work(&contestant, &key, start, turn.time).await })
    };
    let workers: Vec<_> = (0..turn.workers).map(worker).collect();
    let mut lines = Vec::new();
    for worker in workers {
        let waits: Vec<String> = worker.await??.iter().map(ToString::to_string).collect();
        lines.push(waits.join(" "));
    }
    Ok(lines)
}

/// Makes the connections that it needs.
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
        let asked = Instant::now();
        let release = contestant.acquire(key.to_owned()).await?;
        waits.push(asked.elapsed().as_micros());
        let over = start.elapsed() >= time;
        release.await?;
        if over {
            return Ok(waits);
        }
    }
}

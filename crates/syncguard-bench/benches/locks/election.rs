//! How long a key stays without a leader: after a resignation, and after a crash.

use std::time::{Duration, Instant};

use syncguard::{LockManager, Result, Term};
use syncguard_bench::{Outcome, Table};
use tokio::task::JoinHandle;

use crate::options::Pace;
use crate::store::Store;

/// Resignations of one round.
const RESIGNATIONS: usize = 100;
/// Crashes in all: each takes the whole TTL.
const CRASHES: usize = 3;
const TTL: Duration = Duration::from_secs(2);
const KEY: &str = "syncguard-bench:election";

/// Prints a table with the time from the end of a term to the start of the next one. The candidates are
/// two lock managers with connections of their own, so they are like two processes.
pub(crate) async fn run(store: &Store, pace: Pace) -> Outcome {
    eprintln!("{}: elections", store.name());
    let managers = [store.locks().await?, store.locks().await?];
    let mut table = Table::new(&["the term ends by", "terms", "median ms", "longest ms", "target"]);
    let resigned = resignations(&managers, RESIGNATIONS * pace.rounds).await?;
    table.row(row("a resignation", resigned, Duration::from_millis(50)));
    let target = TTL + syncguard_core::TOLERANCE + Duration::from_millis(500);
    table.row(row("a crash after its start", crashes(&managers).await?, target));
    print!("\n{}, from one leader to the next\n\n{table}", store.name());
    Ok(())
}

fn row(end: &str, mut gaps: Vec<Duration>, target: Duration) -> Vec<String> {
    gaps.sort_unstable();
    let millis = |gap: Option<&Duration>| gap.map_or(0.0, Duration::as_secs_f64) * 1e3;
    vec![
        end.to_owned(),
        gaps.len().to_string(),
        format!("{:.1}", millis(gaps.get(gaps.len() / 2))),
        format!("{:.1}", millis(gaps.last())),
        target.as_millis().to_string(),
    ]
}

/// A term of a candidate, and when it began.
async fn campaign(locks: LockManager) -> Result<(Term, Instant)> {
    let term = locks.election(KEY).ttl(TTL).campaign().await?;
    Ok((term, Instant::now()))
}

/// Starts a campaign whose first attempt finds the key held.
async fn waiting(locks: &LockManager) -> JoinHandle<Result<(Term, Instant)>> {
    let next = tokio::spawn(campaign(locks.clone()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    next
}

/// The managers lead in turn, and each resigns.
async fn resignations(managers: &[LockManager; 2], count: usize) -> Outcome<Vec<Duration>> {
    let (mut term, _) = campaign(managers[0].clone()).await?;
    let mut gaps = Vec::new();
    for number in 1..=count {
        let next = waiting(&managers[number % 2]).await;
        let resigned = Instant::now();
        let (ended, began) = tokio::join!(term.resign(), next);
        ended?;
        let began = began??;
        gaps.push(began.1 - resigned);
        term = began.0;
    }
    term.resign().await?;
    Ok(gaps)
}

/// A leader that vanishes right after its start leaves its lease behind.
async fn crashes([one, two]: &[LockManager; 2]) -> Outcome<Vec<Duration>> {
    let mut gaps = Vec::new();
    for _ in 0..CRASHES {
        one.lock(KEY).ttl(TTL).acquire().await?.detach();
        let crashed = Instant::now();
        let (term, began) = waiting(two).await.await??;
        gaps.push(began - crashed);
        term.resign().await?;
    }
    Ok(gaps)
}

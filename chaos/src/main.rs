//! Runs the locks under faults, and checks that the history keeps the contract.
//!
//! `just chaos-redis 60` starts a server and worker processes, does harm to them for 60 s, and prints
//! a table of what happened. RELIABILITY.md says what is checked.

mod check;
mod clock;
mod controls;
mod defect;
mod event;
mod history;
mod keys;
mod outcome;
mod parent;
mod register;
mod report;
mod store;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::outcome::Outcome;
use crate::parent::Plan;
use crate::parent::target::Target;
use crate::report::Table;
use crate::store::Store;

const USAGE: &str = "usage: chaos STORE [SECONDS [SEED [WORKERS]]], where STORE is redis, postgres or \
                     firestore, or chaos check FOLDER";

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments[..] {
        ["worker", options] => {
            runtime.block_on(worker::run(serde_json::from_str(options)?))?;
            Ok(ExitCode::SUCCESS)
        }
        ["check", folder] => {
            let report = check::check(&check::read(folder.as_ref())?);
            println!("{}", Table { title: folder.to_owned(), report: &report });
            Ok(exit_code(report.violations.is_empty()))
        }
        [store, ref rest @ ..] if rest.len() < 4 => {
            let number = |index: usize, default: u64| {
                rest.get(index).map_or(Ok(default), |text| text.parse())
            };
            let seed = number(1, fastrand::u64(..1_000_000))?;
            let workers = usize::try_from(number(2, 4)?)?;
            let seconds = Duration::from_secs(number(0, 60)?);
            let store = store.parse()?;
            Ok(exit_code(runtime.block_on(run(store, seconds, seed, workers))?))
        }
        _ => Err(USAGE.into()),
    }
}

/// Runs the controls and then the store under faults. True if there was no violation.
async fn run(store: Store, faults: Duration, seed: u64, workers: usize) -> Outcome<bool> {
    println!("{store}: {faults:?} of faults, {workers} workers, seed {seed}");
    let target = Target::start(store).await?;
    controls::run(&target, seed).await?;
    let plan = Plan {
        name: "chaos".to_owned(),
        seed,
        workers,
        warm_up: Duration::from_secs(10),
        faults,
        calm: Duration::from_secs(20),
        defect: None,
    };
    let folder = tempfile::Builder::new().prefix("chaos-").tempdir()?;
    parent::run(&plan, &target, folder.path()).await?;
    let report = check::check(&check::read(folder.path())?);
    let title = format!("{store}, {faults:?} of faults, {workers} workers, seed {seed}");
    println!("{}", Table { title, report: &report });
    if !report.violations.is_empty() {
        println!("the histories are in {}", folder.keep().display());
    }
    Ok(report.violations.is_empty())
}

const fn exit_code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

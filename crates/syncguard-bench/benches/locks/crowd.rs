//! Ten thousand tasks of one process that wait for one key.

use std::time::Duration;

use syncguard_bench::{Outcome, Table, whole};

use crate::options::Pace;
use crate::processes::Children;
use crate::store::Store;

pub(crate) mod waiters;

/// What a child is told to do.
pub(crate) const PART: &str = "crowd";

const WAITERS: usize = 10_000;

/// What they may take of memory.
const TARGET_KIB: f64 = 64.0 * 1024.0;

/// Prints a table of one line, and fails if some were not served, or if they take too much memory.
///
/// The crowd has a process of its own, whose memory is all theirs.
pub(crate) async fn run(store: &Store, pace: Pace) -> Outcome {
    eprintln!("{}: {WAITERS} waiters in one process", store.name());
    let time = pace.crowd.as_millis().to_string();
    let arguments = [PART.to_owned(), store.url().to_owned(), WAITERS.to_string(), time];
    let result = async {
        let children = Children::start(1, &arguments).await?;
        children.finish(pace.crowd + GRACE).await
    };
    let lines = Outcome::from(result.await).map_err(|error| format!("the crowd: {error}"))?;
    let [served, millis, waiting, peak] = lines.as_slice() else {
        return Err("the crowd: not what was asked".into());
    };

    let mut table = Table::new(&[
        "waiters",
        "served",
        "s",
        "KiB while all wait",
        "KiB at most",
        "under 64 MiB",
    ]);
    let served: usize = served.parse()?;
    let kib = |text: &str| text.parse().ok();
    let cell = |kib: Option<f64>| kib.map_or_else(|| "-".to_owned(), whole);
    let fits = kib(peak).map(|kib| kib < TARGET_KIB);
    table.row(vec![
        whole(WAITERS as f64),
        whole(served as f64),
        format!("{:.2}", millis.parse::<f64>()? / 1e3),
        cell(kib(waiting)),
        cell(kib(peak)),
        fits.map_or("-", |fits| if fits { "yes" } else { "no" }).to_owned(),
    ]);
    print!("\n{}, a crowd that waits for one key\n\n{table}", store.name());
    if served < WAITERS {
        return Err(format!("the crowd: {served} of {WAITERS} were served").into());
    }
    if fits == Some(false) {
        return Err("the crowd: it took 64 MiB or more".into());
    }
    Ok(())
}

const GRACE: Duration = Duration::from_secs(90);

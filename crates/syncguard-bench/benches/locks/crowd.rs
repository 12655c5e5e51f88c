//! Ten thousand tasks of one process wait for one key.

use std::time::Duration;

use syncguard_bench::{Outcome, Table, whole};

use crate::options::Pace;
use crate::processes::Children;
use crate::store::Store;

pub(crate) mod waiters;

/// The name of this part, as the first argument of a child.
pub(crate) const PART: &str = "crowd";

const WAITERS: usize = 10_000;

/// The memory limit for all waiters together.
const TARGET_KIB: f64 = 64.0 * 1024.0;

/// Prints a table of one row. Fails if a task is not served, or if the tasks take too much memory.
///
/// The crowd has a process of its own, so that its memory can be measured.
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
        return Err("the crowd: malformed answer".into());
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
        return Err(format!("the crowd: only {served} of {WAITERS} were served").into());
    }
    if fits == Some(false) {
        return Err("the crowd: it took 64 MiB or more".into());
    }
    Ok(())
}

/// The extra time after the limit of the crowd in which the child can connect its tasks and answer.
const GRACE: Duration = Duration::from_secs(90);

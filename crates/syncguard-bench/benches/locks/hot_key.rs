//! All workers on one key: grants per second, waits, and how evenly the grants are shared.

use std::time::Duration;

use syncguard_bench::{Outcome, Table, Tally, median, short, whole};

use crate::contestant::PATIENCE;
use crate::options::Pace;
use crate::processes::Children;
use crate::store::{Counter, Store};

pub(crate) mod worker;

/// The name of this part, as the first argument of a child.
pub(crate) const PART: &str = "hot-key";

/// Processes, and workers in each. One worker alone is the reference.
const SETTINGS: [(usize, usize); 5] = [(1, 1), (1, 2), (1, 16), (1, 256), (4, 16)];

/// Prints a table of each contestant with each number of workers, in processes of its own.
///
/// The contestants alternate, so a disturbance of the machine affects all of them.
pub(crate) async fn run(store: &Store, pace: Pace) -> Outcome {
    let mut counter = store.counter().await?;
    let mut table = Table::new(&[
        "workers",
        "contestant",
        "grants/s",
        "wait, ms: median",
        "99 %",
        "longest",
        "of all rounds",
        "fair turn, ms",
        "longest, turns",
        "least share",
        "largest share",
        counter.unit(),
    ]);
    let mut failures = Vec::new();
    let settings =
        SETTINGS.into_iter().filter(|(processes, _)| *processes == 1 || store.is_shared());
    for (processes, workers) in settings {
        let setting = match processes {
            1 => workers.to_string(),
            _ => format!("{processes} x {workers}"),
        };
        eprintln!("{}: {setting} on one key", store.name());
        let contestants = store.on_the_hot_key();
        let mut tallied: Vec<_> = contestants.iter().map(|_| Ok(Vec::new())).collect();
        for _ in 0..pace.rounds {
            for (contestant, tallied) in contestants.iter().zip(&mut tallied) {
                let Ok(tallies) = tallied else { continue };
                let run = Run::new(store, contestant, workers, pace.run);
                match measure(store, &mut counter, run, processes).await {
                    Ok(tally) => tallies.push(tally),
                    Err(reason) => *tallied = Err(reason),
                }
            }
        }
        for (contestant, tallied) in contestants.iter().zip(tallied) {
            let mut cells = vec![setting.clone(), (*contestant).to_owned()];
            let result = async {
                let tallies = tallied?;
                let mut counted = tallies.iter().map(|tally| tally.commands_per_grant).collect();
                if let Some(url) = counter.proxy_url() {
                    // Only the count of this run is used, because the proxy slows clients down.
                    let mut run = Run::new(store, contestant, workers, pace.run);
                    run.url = url.to_owned();
                    let tally = measure(store, &mut counter, run, processes).await?;
                    counted = tally.commands_per_grant.map(|count| vec![count]);
                }
                Outcome::Ok(figures(&tallies, counted))
            };
            match result.await {
                Ok(figures) => cells.extend(figures),
                Err(reason) => {
                    cells.push("n/a".to_owned());
                    failures.push(format!("{setting}, {contestant}: {reason}"));
                }
            }
            table.row(cells);
        }
    }
    print!("\n{}, all on one key\n\n{table}", store.name());
    for failure in failures {
        println!("\n{failure}.");
    }
    Ok(())
}

/// The extra time after the wait limit in which a worker can report that it was not served.
const GRACE: Duration = Duration::from_secs(10);

async fn measure(
    store: &Store,
    counter: &mut Counter,
    mut run: Run,
    processes: usize,
) -> Outcome<Tally> {
    if let Some(all) = counter.connections().await? {
        run.connections = run.workers.min(all / processes);
        if run.connections < run.workers && store.holds_a_connection_each(&run.contestant) {
            return Err(format!(
                "needs a connection for each worker, but the server has only {all}"
            )
            .into());
        }
    }
    let children = Children::start(processes, &run.to_arguments()).await?;
    let before = counter.commands(&run.contestant).await?;
    let lines = children.finish(run.time + PATIENCE + GRACE).await?;
    let after = counter.commands(&run.contestant).await?;
    let commands = before.zip(after).map(|(before, after)| after - before);
    Tally::parse(&lines, run.time, commands)
}

/// Returns the cells of a row: medians over all rounds, and the longest wait of all rounds.
fn figures(tallies: &[Tally], commands_per_grant: Option<Vec<f64>>) -> [String; 10] {
    let of_each = |figure: &dyn Fn(&Tally) -> f64| tallies.iter().map(figure).collect::<Vec<_>>();
    let middle = |figure: &dyn Fn(&Tally) -> f64| median(of_each(figure));
    [
        whole(middle(&|tally| tally.rate)),
        short(middle(&|tally| tally.wait(0.5))),
        short(middle(&|tally| tally.wait(0.99))),
        short(middle(&|tally| tally.wait(1.0))),
        short(of_each(&|tally| tally.wait(1.0)).into_iter().fold(0.0, f64::max)),
        short(middle(&|tally| tally.fair_turn)),
        short(middle(&|tally| tally.wait(1.0) / tally.fair_turn)),
        format!("{:.2}", middle(&|tally| tally.least_share)),
        format!("{:.2}", middle(&|tally| tally.largest_share)),
        commands_per_grant.map_or_else(|| "-".to_owned(), |counts| short(median(counts))),
    ]
}

/// The settings of one run, as a child gets them.
struct Run {
    url: String,
    contestant: String,
    /// A new key for each run, so that a failed run does not affect the next.
    key: String,
    workers: usize,
    /// The size of the connection pool, if the contestant has one.
    connections: usize,
    time: Duration,
}

impl Run {
    fn new(store: &Store, contestant: &str, workers: usize, time: Duration) -> Self {
        Self {
            url: store.url().to_owned(),
            contestant: contestant.to_owned(),
            key: format!("bench:hot:{:016x}", fastrand::u64(..)),
            workers,
            connections: workers,
            time,
        }
    }

    fn to_arguments(&self) -> [String; 7] {
        let Self { url, contestant, key, workers, connections, time } = self;
        [
            PART.to_owned(),
            url.clone(),
            contestant.clone(),
            key.clone(),
            workers.to_string(),
            connections.to_string(),
            time.as_millis().to_string(),
        ]
    }

    fn from_arguments(arguments: &[String]) -> Outcome<Self> {
        let [url, contestant, key, workers, connections, time] = arguments else {
            return Err("a child got malformed arguments".into());
        };
        Ok(Self {
            url: url.clone(),
            contestant: contestant.clone(),
            key: key.clone(),
            workers: workers.parse()?,
            connections: connections.parse()?,
            time: Duration::from_millis(time.parse()?),
        })
    }
}

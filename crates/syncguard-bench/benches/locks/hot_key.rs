//! One key that all want: how many get it, how long they wait, and how evenly it is shared.

use std::time::Duration;

use syncguard_bench::{Outcome, Table, Tally, median, short, whole};

use crate::contestant::PATIENCE;
use crate::options::Pace;
use crate::processes::Children;
use crate::store::{Counter, Store};

pub(crate) mod worker;

/// What a child is told to do.
pub(crate) const PART: &str = "hot-key";

/// Processes, and workers in each. One worker alone is the measure for the others.
const SETTINGS: [(usize, usize); 5] = [(1, 1), (1, 2), (1, 16), (1, 256), (4, 16)];

/// Prints a table: each contestant with each number of workers, in processes of its own.
///
/// All run in turns, so that what disturbs the machine disturbs all.
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
        let mut played: Vec<_> = contestants.iter().map(|_| Ok(Vec::new())).collect();
        for _ in 0..pace.rounds {
            for (contestant, played) in contestants.iter().zip(&mut played) {
                let Ok(tallies) = played else { continue };
                let turn = Turn::new(store, contestant, workers, pace.turn);
                match play(store, &mut counter, turn, processes).await {
                    Ok(tally) => tallies.push(tally),
                    Err(reason) => *played = Err(reason),
                }
            }
        }
        for (contestant, played) in contestants.iter().zip(played) {
            let mut cells = vec![setting.clone(), (*contestant).to_owned()];
            let result = async {
                let tallies = played?;
                let mut counted = tallies.iter().map(|tally| tally.commands_per_grant).collect();
                if let Some(url) = counter.detour() {
                    // Nothing but the count is taken from this turn.
                    let mut turn = Turn::new(store, contestant, workers, pace.turn);
                    turn.url = url.to_owned();
                    let tally = play(store, &mut counter, turn, processes).await?;
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

/// Beyond the limit of a wait, so that a worker can say that it was not served.
const GRACE: Duration = Duration::from_secs(10);

async fn play(
    store: &Store,
    counter: &mut Counter,
    mut turn: Turn,
    processes: usize,
) -> Outcome<Tally> {
    if let Some(all) = counter.connections().await? {
        turn.connections = turn.workers.min(all / processes);
        if turn.connections < turn.workers && store.holds_a_connection_each(&turn.contestant) {
            return Err(format!("a connection for each worker, and the server has {all}").into());
        }
    }
    let children = Children::start(processes, &turn.to_arguments()).await?;
    let before = counter.commands(&turn.contestant).await?;
    let lines = children.finish(turn.time + PATIENCE + GRACE).await?;
    let after = counter.commands(&turn.contestant).await?;
    let commands = before.zip(after).map(|(before, after)| after - before);
    Tally::parse(&lines, turn.time, commands)
}

/// Medians over all rounds, and the longest wait of all.
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

/// What a child needs to know.
struct Turn {
    url: String,
    contestant: String,
    /// Another one for each turn, so that a turn that failed does no harm to the next.
    key: String,
    workers: usize,
    /// Where there is a pool.
    connections: usize,
    time: Duration,
}

impl Turn {
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
            return Err("not the arguments of a child".into());
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

//! Lanes and caps of group commit, on networks with different delays.

use std::time::Duration;

use syncguard_bench::{Outcome, Table, median, short, whole};

use crate::choice::Choice;
use crate::delay::{Delay, host_and_port};
use crate::options::Pace;
use crate::store::Store;
use crate::uncontended::{self, Run};

/// In each direction, in ms.
const DELAYS: [u64; 3] = [0, 1, 5];
const TASKS: [usize; 5] = [1, 4, 16, 64, 256];

/// Prints a table of rates and latencies. The choices alternate.
async fn compare(store: &Store, choices: &[Choice], pace: Pace) -> Outcome {
    let mut table = Table::new(&[
        "delay, ms",
        "connections",
        "lanes",
        "cap",
        "tasks",
        "cycles/s",
        "cycle, ms: median",
        "99 %",
    ]);
    for delay in DELAYS {
        eprintln!("{}: group commit with {delay} ms", store.name());
        let server = host_and_port(store.url())?.to_owned();
        let forwarder = Delay::to(server, Duration::from_millis(delay)).await?;
        // Without a delay, the forwarder would be one.
        let url = if delay == 0 { store.url().to_owned() } else { forwarder.url(store.url())? };
        let mut contestants = Vec::new();
        for choice in choices {
            contestants.push(store.chosen(&url, *choice).await?);
        }
        for tasks in TASKS {
            let mut runs: Vec<Vec<Run>> = choices.iter().map(|_| Vec::new()).collect();
            for contestant in &contestants {
                uncontended::run(contestant, tasks, Duration::ZERO).await?;
            }
            for _ in 0..pace.rounds {
                for (contestant, runs) in contestants.iter().zip(&mut runs) {
                    runs.push(uncontended::run(contestant, tasks, pace.run).await?);
                }
            }
            for (choice, runs) in choices.iter().zip(&runs) {
                let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
                let lanes = |part: fn((usize, usize)) -> usize| {
                    choice.lanes.map_or_else(|| "-".to_owned(), |lanes| part(lanes).to_string())
                };
                table.row(vec![
                    delay.to_string(),
                    choice.connections.to_string(),
                    lanes(|(lanes, _)| lanes),
                    lanes(|(_, cap)| cap),
                    tasks.to_string(),
                    whole(of(|run| run.rate)),
                    short(of(|run| run.median)),
                    short(of(|run| run.slow)),
                ]);
            }
        }
    }
    print!("\n{}, group commit\n\n{table}", store.name());
    Ok(())
}

/// Prints the table of the store.
pub(crate) async fn run(store: &Store, pace: Pace) -> Outcome {
    let alone = |connections| Choice { lanes: None, connections };
    let group = |connections, lanes, cap| Choice { lanes: Some((lanes, cap)), connections };
    let choices = match store {
        Store::Postgres(_) => vec![
            group(2, 1, 32),
            group(10, 1, 32),
            group(10, 2, 32),
            group(10, 4, 32),
            group(10, 2, 128),
            group(10, 4, 128),
            group(20, 4, 32),
            group(20, 8, 32),
            alone(10),
        ],
        _ => [1, 2, 4, 8]
            .into_iter()
            .flat_map(|lanes| [16, 32].map(|cap| group(1, lanes, cap)))
            .chain([alone(1)])
            .collect(),
    };
    compare(store, &choices, pace).await
}

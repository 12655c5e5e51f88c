//! Cycles per second of several contestants, each task on a key of its own.

use std::time::{Duration, Instant};

use syncguard_bench::{Outcome, Table, median, whole};

use crate::contestant::Contestant;
use crate::options::Pace;

/// Prints a table of the rates of all contestants, and their ratios to the first, which is the
/// floor.
///
/// The contestants alternate, so a disturbance of the machine affects all of them. The ratio is the
/// result.
pub(crate) async fn compare(
    store: &str,
    contestants: &[Contestant],
    tasks: &[usize],
    pace: Pace,
) -> Outcome {
    let mut table = Table::new(&["tasks", "contestant", "cycles/s", "of floor"]);
    for &tasks in tasks {
        eprintln!("{store}: {tasks} tasks on keys of their own");
        // Opens the connections before the measurement.
        for contestant in contestants {
            rate(contestant, tasks, Duration::ZERO).await?;
        }
        let mut rates = vec![Vec::new(); contestants.len()];
        for _ in 0..pace.rounds {
            for (contestant, rates) in contestants.iter().zip(&mut rates) {
                rates.push(rate(contestant, tasks, pace.run).await?);
            }
        }
        for (contestant, mine) in contestants.iter().zip(&rates) {
            let ratios = mine.iter().zip(&rates[0]).map(|(mine, floor)| mine / floor).collect();
            table.row(vec![
                tasks.to_string(),
                contestant.name.to_owned(),
                whole(median(mine.clone())),
                format!("{:.2}", median(ratios)),
            ]);
        }
    }
    print!("\n{store}, each task on a key of its own\n\n{table}");
    Ok(())
}

/// Returns the cycles per second. Each task does at least one cycle.
async fn rate(contestant: &Contestant, tasks: usize, time: Duration) -> Outcome<f64> {
    let start = Instant::now();
    let task = |task: usize| {
        let contestant = contestant.clone();
        tokio::spawn(async move {
            let mut cycles = 0.0;
            loop {
                contestant.cycle(format!("bench:{task}")).await?;
                cycles += 1.0;
                if start.elapsed() >= time {
                    return Outcome::Ok(cycles);
                }
            }
        })
    };
    let tasks: Vec<_> = (0..tasks).map(task).collect();
    let mut cycles = 0.0;
    for task in tasks {
        cycles += task.await??;
    }
    Ok(cycles / start.elapsed().as_secs_f64())
}

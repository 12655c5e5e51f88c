//! Cycles per second of several contestants, each task on a key of its own.

use std::time::{Duration, Instant};

use syncguard_bench::{Outcome, Table, median, quantile, short, whole};

use crate::contestant::Contestant;
use crate::options::Pace;

/// What one run showed.
pub(crate) struct Run {
    /// Cycles per second.
    pub(crate) rate: f64,
    /// The time of a cycle in milliseconds: the median, and what 99 of 100 cycles do not exceed.
    pub(crate) median: f64,
    pub(crate) slow: f64,
}

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
    let columns = ["tasks", "contestant", "cycles/s", "of floor", "cycle, ms: median", "99 %"];
    let mut table = Table::new(&columns);
    for &tasks in tasks {
        eprintln!("{store}: {tasks} tasks on keys of their own");
        // Opens the connections before the measurement.
        for contestant in contestants {
            run(contestant, tasks, Duration::ZERO).await?;
        }
        let mut runs: Vec<Vec<Run>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..pace.rounds {
            for (contestant, runs) in contestants.iter().zip(&mut runs) {
                runs.push(run(contestant, tasks, pace.run).await?);
            }
        }
        for (contestant, mine) in contestants.iter().zip(&runs) {
            let of = |figure: fn(&Run) -> f64| median(mine.iter().map(figure).collect());
            let ratios = mine.iter().zip(&runs[0]).map(|(mine, floor)| mine.rate / floor.rate);
            table.row(vec![
                tasks.to_string(),
                contestant.name.to_owned(),
                whole(of(|run| run.rate)),
                format!("{:.2}", median(ratios.collect())),
                short(of(|run| run.median)),
                short(of(|run| run.slow)),
            ]);
        }
    }
    print!("\n{store}, each task on a key of its own\n\n{table}");
    Ok(())
}

/// Runs so many tasks for this time. Each task does at least one cycle.
pub(crate) async fn run(contestant: &Contestant, tasks: usize, time: Duration) -> Outcome<Run> {
    let start = Instant::now();
    let task = |task: usize| {
        let contestant = contestant.clone();
        tokio::spawn(async move {
            let mut cycles = Vec::new();
            loop {
                let began = Instant::now();
                contestant.cycle(format!("bench:{task}")).await?;
                cycles.push(began.elapsed().as_secs_f64() * 1e3);
                if start.elapsed() >= time {
                    return Outcome::Ok(cycles);
                }
            }
        })
    };
    let tasks: Vec<_> = (0..tasks).map(task).collect();
    let mut cycles = Vec::new();
    for task in tasks {
        cycles.extend(task.await??);
    }
    let rate = cycles.len() as f64 / start.elapsed().as_secs_f64();
    cycles.sort_by(f64::total_cmp);
    Ok(Run { rate, median: quantile(&cycles, 0.5), slow: quantile(&cycles, 0.99) })
}

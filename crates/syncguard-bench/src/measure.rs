//! Cycles per second of several contestants in turns.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use syncguard::LockManager;
use syncguard_core::{Acquired, AnyBackend, Backend, Key, LockId, Ttl};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

type Cycle = dyn Fn(String) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// What takes a key and gives it back.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    cycle: Arc<Cycle>,
}

impl Contestant {
    pub(crate) fn new<F>(
        name: &'static str,
        cycle: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self { name, cycle: Arc::new(move |key| Box::pin(cycle(key))) }
    }

    /// The lock manager on a backend.
    pub(crate) fn of(locks: LockManager) -> Self {
        Self::new("lock manager", move |key| {
            let locks = locks.clone();
            async move {
                locks.lock(key).acquire().await?.release().await?;
                Ok(())
            }
        })
    }

    /// Cycles per second of so many tasks, each on keys of its own.
    async fn rate(&self, tasks: usize, time: Duration) -> Outcome<f64> {
        let start = Instant::now();
        let task = |task: usize| {
            let cycle = self.cycle.clone();
            tokio::spawn(async move {
                let mut cycles = 0.0;
                while start.elapsed() < time {
                    cycle(format!("bench:{task}")).await?;
                    cycles += 1.0;
                }
                Outcome::Ok(cycles)
            })
        };
        let tasks: Vec<_> = (0..tasks).map(task).collect();
        let mut cycles = 0.0;
        for task in tasks {
            cycles += task.await??;
        }
        Ok(cycles / start.elapsed().as_secs_f64())
    }
}

/// A backend, without the lock manager.
pub(crate) fn locks_of(
    name: &'static str,
    backend: &(impl Backend + Clone),
) -> Outcome<Contestant> {
    let backend = AnyBackend::new(backend.clone());
    let ttl = Ttl::try_from(Duration::from_secs(30))?;
    Ok(Contestant::new(name, move |key| {
        let backend = backend.clone();
        async move {
            match backend.acquire(&Key::new(&key)?, &LockId::random()?, ttl).await? {
                Acquired::Granted(lease) => {
                    backend.release(&lease).await?;
                    Ok(())
                }
                Acquired::Held { .. } => Err("the key is held".into()),
            }
        }
    }))
}

/// The number of the task whose key this is.
pub(crate) fn task_of(key: &str) -> usize {
    key.rsplit(':').next().and_then(|task| task.parse().ok()).unwrap_or_default()
}

const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(700);

/// Prints a table: the rates of all, and how they compare with the first, which is the floor.
pub(crate) async fn compare(contestants: &[Contestant], tasks: &[usize]) -> Outcome {
    println!("{:>28} {:>6} {:>12} {:>10}", "", "tasks", "cycles/s", "of floor");
    for &tasks in tasks {
        let mut rates = vec![Vec::new(); contestants.len()];
        for _ in 0..ROUNDS {
            for (contestant, rates) in contestants.iter().zip(&mut rates) {
                rates.push(contestant.rate(tasks, TURN).await?);
            }
        }
        for (contestant, mine) in contestants.iter().zip(&rates) {
            let ratios = mine.iter().zip(&rates[0]).map(|(mine, floor)| mine / floor).collect();
            println!(
                "{:>28} {tasks:>6} {:>12.0} {:>10.2}",
                contestant.name,
                median(mine.clone()),
                median(ratios)
            );
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

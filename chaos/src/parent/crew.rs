//! The worker processes.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::event::Event;
use crate::history::History;
use crate::outcome::Outcome;
use crate::worker::Options;

/// The workers, by number. One that was killed is replaced under its number.
#[derive(Debug)]
pub(crate) struct Crew {
    /// The options of all; each worker has its own number, name and file.
    options: Options,
    folder: PathBuf,
    workers: Mutex<Vec<Worker>>,
}

#[derive(Debug)]
struct Worker {
    process: Child,
    /// How many had this number before.
    incarnation: usize,
}

/// How long a worker may take to end its work: a hold, and a shutdown while nothing fails.
const DRAINING: Duration = Duration::from_secs(30);

impl Crew {
    pub(crate) fn start(options: Options, folder: PathBuf, size: usize) -> Outcome<Self> {
        let mut crew = Self { options, folder, workers: Mutex::default() };
        for number in 0..size {
            let worker = crew.spawn(number, 0)?;
            crew.workers.get_mut().push(worker);
        }
        Ok(crew)
    }

    fn spawn(&self, number: usize, incarnation: usize) -> Outcome<Worker> {
        let name = format!("{number}-{incarnation}");
        let seed = self.options.seed.wrapping_add(1_000 * (number * 1_000 + incarnation) as u64);
        let history = self.folder.join(format!("worker-{name}.jsonl"));
        let options = Options { number, name, seed, history, ..self.options.clone() };
        let process = Command::new(std::env::current_exe()?)
            .args(["worker", &serde_json::to_string(&options)?])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Worker { process, incarnation })
    }

    pub(crate) async fn size(&self) -> usize {
        self.workers.lock().await.len()
    }

    pub(crate) async fn kill(&self, number: usize) -> Outcome {
        Ok(self.workers.lock().await[number].process.kill().await?)
    }

    /// Starts a worker in the place of one that was killed.
    pub(crate) async fn replace(&self, number: usize) -> Outcome {
        let mut workers = self.workers.lock().await;
        let incarnation = workers[number].incarnation + 1;
        workers[number] = self.spawn(number, incarnation)?;
        Ok(())
    }

    pub(crate) async fn signal(&self, number: usize, signal: Signal) -> Outcome {
        let workers = self.workers.lock().await;
        let pid = workers[number].pid().ok_or("the worker has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Notes what each worker uses now.
    pub(crate) async fn sample(&self, history: &History) {
        for (worker, process) in self.workers.lock().await.iter().enumerate() {
            // A process that was just killed uses nothing.
            if let Some(pid) = process.pid()
                && let Ok((memory_kib, sockets)) = usage(pid)
            {
                history.note(Event::Sample { worker, memory_kib, sockets });
            }
        }
    }

    /// Lets all workers end their work, and waits for that. What does not end is killed, and has no
    /// end in its history.
    pub(crate) async fn drain(&self) -> Outcome {
        let mut workers = self.workers.lock().await;
        for worker in workers.iter_mut() {
            drop(worker.process.stdin.take());
        }
        for worker in workers.iter_mut() {
            if timeout(DRAINING, worker.process.wait()).await.is_err() {
                worker.process.kill().await?;
            }
        }
        Ok(())
    }
}

impl Worker {
    fn pid(&self) -> Option<Pid> {
        self.process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?))
    }
}

/// The memory in KiB and the number of sockets of a process.
fn usage(pid: Pid) -> Result<(u64, u64), Box<dyn Error>> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let status = fs::read_to_string(format!("{folder}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = resident.and_then(|text| text.split_whitespace().next()).unwrap_or("0");
    let mut sockets = 0;
    for file in fs::read_dir(format!("{folder}/fd"))? {
        let target = fs::read_link(file?.path()).unwrap_or_default();
        sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok((memory.parse()?, sockets))
}

//! A worker process: uses everything that the library offers, and writes down what happens.

mod abandon;
mod attempts;
mod greedy;
mod hold;
mod leader;
mod long;
mod short;
mod task;

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncguard::{
    AnyBackend, Backoff, CancellationToken, Event as Observed, Fingerprint, LockManager, Operation,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::attempts::Attempts;
use self::greedy::Greedy;
use self::task::{Task, Worker};
use crate::clock::Moment;
use crate::defect::Defect;
use crate::event::Event;
use crate::history::History;
use crate::keys::Keys;
use crate::outcome::Outcome;
use crate::store::Store;

/// What the parent tells a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) store: Store,
    /// The port of the store, through the forwarder.
    pub(crate) port: u16,
    /// The port of the fenced register.
    pub(crate) register: u16,
    pub(crate) history: PathBuf,
    pub(crate) keys: Keys,
    /// The number of the worker. A worker in its place after a kill has the same.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) defect: Option<Defect>,
}

const LONG_TASKS: u64 = 2;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Works until the standard input ends.
pub(crate) async fn run(options: Options) -> Outcome {
    let history = History::create(&options.history)?;
    note_panics(&history);
    history.note_stalls()?;
    history.note(Event::Started { seed: options.seed });

    let stop = stop_with_parent()?;
    let Some(backend) = connect(&options, &history, &stop).await else {
        history.note(Event::Drained { waiters: 0, terms: 0 });
        return Ok(());
    };
    let short_tasks = options.store.short_tasks();
    let worker = Arc::new(worker(options, history, backend, stop.clone()));
    let mut tasks = JoinSet::new();
    for number in 0..short_tasks + LONG_TASKS {
        let mut task = Task::new(worker.clone(), number).await?;
        tasks.spawn(async move {
            while !task.worker.stop.is_cancelled() {
                if number < short_tasks {
                    short::step(&mut task).await;
                } else {
                    long::step(&mut task).await;
                }
            }
        });
    }
    start_elections(&worker, &mut tasks);

    stop.cancelled().await;
    // Ends the waits. Holders end by themselves.
    let (began, first) = (Moment::now(), worker.locks.shutdown().await);
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    if let Err(error) = first.and(worker.locks.shutdown().await) {
        worker.failed(&error, began);
    }
    let (waiters, terms) = (worker.locks.waiters(), worker.locks.terms());
    worker.note(Event::Drained { waiters, terms });
    Ok(())
}

/// The first connection may need several attempts while the store is away.
async fn connect(
    options: &Options,
    history: &History,
    stop: &CancellationToken,
) -> Option<AnyBackend> {
    loop {
        let began = Moment::now();
        match options.store.connect(options.port).await {
            Ok(backend) if options.defect == Some(Defect::BackendIgnoresHolder) => {
                return Some(AnyBackend::new(Greedy(backend)));
            }
            Ok(backend) => return Some(backend),
            Err(error) => history.note(Event::failed(&error, began)),
        }
        if stop.is_cancelled() {
            return None;
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

fn worker(
    options: Options,
    history: History,
    backend: AnyBackend,
    stop: CancellationToken,
) -> Worker {
    let Options { register, keys, number, name, seed, defect, .. } = options;
    let attempts = Attempts::default();
    let elections = keys.elections().map(|key| (Fingerprint::of(&key), key));
    let (seen, noted) = (attempts.clone(), history.clone());
    let on_event = move |event: &Observed| {
        seen.note(event);
        if event.operation() == Operation::Release && event.outcome() == syncguard::Outcome::Done {
            let election = elections.iter().find(|(key, _)| event.key() == Some(*key));
            if let Some((_, key)) = election {
                noted.note(Event::TermReleased { key: key.clone() });
            }
        }
    };
    let failed = history.clone();
    let locks = LockManager::builder(backend)
        .backoff(Backoff::exponential(Duration::from_millis(50)))
        .observer(on_event)
        .on_release_error(move |error| failed.note(Event::failed(error, Moment::now())))
        .build();
    let holds = AtomicU64::default();
    Worker { number, name, seed, locks, keys, history, attempts, register, defect, stop, holds }
}

fn start_elections(worker: &Arc<Worker>, tasks: &mut JoinSet<()>) {
    tasks.spawn(leader::contest(worker.clone(), worker.number % 2 == 1));
    if worker.number == 0 {
        tasks.spawn(leader::alone(worker.clone()));
    }
    for key in worker.keys.elections() {
        tasks.spawn(leader::observe(worker.clone(), key));
    }
}

fn note_panics(history: &History) {
    let (history, default) = (history.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        history.note(Event::Panicked { message: panic.to_string() });
        default(panic);
    }));
}

/// Returns a token that is cancelled when the parent closes its end of the standard input, or has
/// gone.
fn stop_with_parent() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    // A task would keep the runtime from ending.
    let wait = move || {
        let _ = io::stdin().read(&mut [0]);
        stopped.cancel();
    };
    thread::Builder::new().name("stop".to_owned()).spawn(wait)?;
    Ok(stop)
}

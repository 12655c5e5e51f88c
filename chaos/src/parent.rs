//! The parent: starts the workers, does harm to them, and lets them end.

mod crew;
mod faults;
pub(crate) mod target;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fastrand::Rng;
use syncguard::LockManager;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use self::crew::Crew;
use self::faults::Faults;
use self::target::Target;
use crate::clock::Moment;
use crate::defect::Defect;
use crate::event::{Event, Phase};
use crate::history::History;
use crate::keys::Keys;
use crate::outcome::Outcome;
use crate::register;
use crate::worker::Options;

/// What a run does, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The first word of its keys.
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) warm_up: Duration,
    pub(crate) faults: Duration,
    pub(crate) calm: Duration,
    /// A negative control.
    pub(crate) defect: Option<Defect>,
}

/// Of the file in which the parent and the register write their history.
pub(crate) const PARENT_FILE: &str = "parent.jsonl";
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
const WATCH_PERIOD: Duration = Duration::from_millis(100);
/// A part of the command timeout that is missing then.
const SLOW: Duration = Duration::from_millis(200);
/// How long a key may stay held after all workers have ended: see `check::recovery`.
const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// Runs workers on the server by this plan, and leaves their histories in `folder`.
pub(crate) async fn run(plan: &Plan, target: &Target, folder: &Path) -> Outcome {
    let history = History::create(&folder.join(PARENT_FILE))?;
    history.note_stalls()?;
    let keys = Keys::of(plan.name.clone());
    let options = Options {
        store: target.store,
        port: target.forwarder.port(),
        register: register::start(history.clone()).await?,
        history: folder.to_owned(),
        keys: keys.clone(),
        number: 0,
        name: String::new(),
        seed: plan.seed,
        defect: plan.defect,
    };
    let crew = Crew::start(options, folder.to_owned(), plan.workers)?;
    tokio::select! {
        done = phases(plan, target, &crew, &history, &keys) => done?,
        () = sample(&crew, &history) => {}
        () = watch(target, &history) => {}
    }
    probe(target, &keys, &history).await?;
    history.note(Event::Phase(Phase::End));
    Ok(())
}

async fn phases(
    plan: &Plan,
    target: &Target,
    crew: &Crew,
    history: &History,
    keys: &Keys,
) -> Outcome {
    history.note(Event::Phase(Phase::WarmUp));
    sleep(plan.warm_up).await;
    history.note(Event::Phase(Phase::Faults));
    let faults = Faults { target, crew, history, keys, next: AtomicU64::default() };
    harm(plan, &faults).await?;
    history.note(Event::Phase(Phase::Calm));
    sleep(plan.calm).await;
    history.note(Event::Phase(Phase::Drain));
    crew.drain().await
}

/// Does what the plan says. A control suffers no more than it needs to show its defect.
async fn harm(plan: &Plan, faults: &Faults<'_>) -> Outcome {
    let until = Instant::now() + plan.faults;
    let mut rng = Rng::with_seed(plan.seed);
    let (outside, inside) = (rng.fork(), rng.fork());
    match plan.defect {
        None => {
            let (outside, inside) =
                tokio::join!(faults.outside(outside, until), faults.inside(inside, until));
            outside.and(inside)?;
        }
        Some(Defect::CountersDeleted) => faults.delete_counters().await?,
        Some(_) => {}
    }
    tokio::time::sleep_until(until).await;
    Ok(())
}

async fn sample(crew: &Crew, history: &History) {
    let mut ticks = interval(SAMPLE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        crew.sample(history).await;
    }
}

/// Notes when the server is slow for a plain client, or does not answer it: then timeouts are not the
/// fault of the library.
async fn watch(target: &Target, history: &History) {
    loop {
        sleep(WATCH_PERIOD).await;
        let began = Moment::now();
        // While the server is away, there is a fault in the history.
        drop(timeout(SLOW * 20, target.write()).await);
        let waited = Moment::now().since(began);
        if waited > SLOW {
            history.note(Event::server_slow(waited));
        }
    }
}

/// Takes each key once, to see that none stays held.
async fn probe(target: &Target, keys: &Keys, history: &History) -> Outcome {
    let locks = LockManager::new(target.store.connect(target.direct_port()).await?);
    let mut probes = JoinSet::new();
    for key in keys.locks().into_iter().chain(keys.elections()) {
        let (locks, history) = (locks.clone(), history.clone());
        probes.spawn(async move {
            let began = Moment::now();
            let acquired = locks.lock(key.as_str()).wait(PROBE_LIMIT).acquire().await;
            let waited = Moment::now().since(began);
            let granted = acquired.is_ok();
            history.note(Event::probed(key, waited, granted));
        });
    }
    while let Some(probed) = probes.join_next().await {
        probed?;
    }
    Ok(locks.shutdown().await?)
}

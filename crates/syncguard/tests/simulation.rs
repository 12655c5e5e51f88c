//! A1, A3, G7, N2, W7: thousands of runs of several processes under faults, each from a seed, on a
//! simulated clock. `SYNCGUARD_SEED=7 cargo test -p syncguard --test simulation` runs one seed again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use support::waiters::MS;
use syncguard::{
    Backend, CancellationToken, ErrorCode, Fence, LockGuard, LockManager, LockRequest, Result,
};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend, Notifications};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const SEEDS: u64 = 2_000;
const PROCESSES: usize = 3;
const TASKS: usize = 3;
const STEPS: usize = 6;
const KEYS: [&str; 2] = ["one", "two"];
const TTL: Duration = Duration::from_millis(600);
/// Faults end at this time.
const FAULTS: Duration = Duration::from_secs(4);

#[test]
fn no_run_has_two_holders_a_fence_that_repeats_or_a_lease_that_remains() {
    let seeds = match std::env::var("SYNCGUARD_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).collect(),
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                    assert!(
                        outcome.is_ok(),
                        "the run failed: repeat it with SYNCGUARD_SEED={seed}"
                    );
                }
            });
        }
    });
}

fn run(seed: u64) {
    // Jitter is drawn from here.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(Rng::with_seed(seed)));
}

/// What the holders of one key rely on.
#[derive(Default)]
struct Holders {
    highest: Option<Fence>,
    /// The newest holder, and until when it relies on its lease, unless it lets go before.
    newest: Option<(Fence, Instant)>,
}

/// What all processes do.
#[derive(Clone, Default)]
struct History(Arc<Mutex<[Holders; KEYS.len()]>>);

impl History {
    fn granted(&self, key: usize, fence: Fence, remaining: Duration) {
        assert!(!remaining.is_zero(), "{fence} was lost when it was granted");
        let now = Instant::now();
        let holders = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[key];
        assert!(holders.highest < Some(fence), "{fence} after {:?}", holders.highest);
        if let Some((other, until)) = holders.newest {
            assert!(
                until <= now,
                "{other} relies on its lease beside {fence}, for {:?}",
                until - now
            );
        }
        holders.highest = Some(fence);
        holders.newest = Some((fence, now + remaining));
    }

    fn relies(&self, key: usize, fence: Fence, remaining: Duration) {
        let holders = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[key];
        match &mut holders.newest {
            Some((newest, until)) if *newest == fence => *until = Instant::now() + remaining,
            // Others may have been granted the key since, but only after this lease.
            _ => assert!(remaining.is_zero(), "{fence} still relies on its lease"),
        }
    }

    fn lets_go(&self, key: usize, fence: Fence) {
        let holders = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[key];
        holders.newest = holders.newest.filter(|(newest, _)| *newest != fence);
    }
}

async fn simulate(mut random: Rng) {
    let store = MemoryBackend::new();
    let store = if random.bool() { store.with_end_at_ttl() } else { store };
    let (history, end) = (History::default(), CancellationToken::new());
    let mut processes = Vec::new();
    let mut tasks = JoinSet::new();
    for _ in 0..PROCESSES {
        let backend = faulty(&store, &mut random);
        let locks = LockManager::new(backend.clone());
        for task in 0..TASKS {
            let (locks, history, random) = (locks.clone(), history.clone(), random.fork());
            if task == 0 {
                tasks.spawn(lead(locks, history, random, end.clone()));
            } else {
                tasks.spawn(work(locks, history, random));
            }
        }
        processes.push((backend, locks));
    }
    sleep(FAULTS).await;
    for (backend, _) in &processes {
        backend.on_call(|_, _| Fault::None);
        backend.open();
    }
    // Everybody ends by itself, but the leaders.
    sleep(FAULTS).await;
    end.cancel();
    let ended = timeout(60 * FAULTS, tasks.join_all()).await;
    assert!(ended.is_ok(), "a task is stuck");
    for (backend, locks) in &processes {
        locks.shutdown().await.unwrap();
        assert_eq!((locks.waiters(), locks.terms()), (0, 0));
        assert_eq!(backend.registrations(), 0);
    }
    // What was detached ends by its TTL.
    sleep(3 * TTL).await;
    for key in KEYS {
        assert_eq!(store.get(&key.try_into().unwrap()).await.unwrap(), None, "of {key}");
    }
}

/// The store for one process, with a network of its own.
fn faulty(store: &MemoryBackend, random: &mut Rng) -> FaultyBackend {
    let backend = FaultyBackend::new(store.clone());
    let backend = if random.u32(..4) == 0 { backend.without_handoff() } else { backend };
    let backend = if random.u32(..4) == 0 { backend.without_notifications() } else { backend };
    if random.u32(..3) == 0 {
        backend.set_notifications(Notifications::Lossy);
    }
    let (calm, faults) = (random.u32(8..40), Mutex::new(random.fork()));
    backend.on_call(move |_, _| {
        let mut random = faults.lock().unwrap();
        let delay = MS * random.u32(..400);
        match random.u32(..calm) {
            0 => Fault::Fail(ErrorCode::ServiceUnavailable),
            1 => Fault::FailUnsent(ErrorCode::ServiceUnavailable),
            2 => Fault::LoseReply(ErrorCode::NetworkTimeout),
            3 => Fault::LandLate(delay),
            4 => Fault::DelayRequest(delay),
            5 => Fault::DelayReply(delay),
            6 => Fault::HoldReply,
            7 => Fault::HoldRequest,
            _ => Fault::DelayReply(MS),
        }
    });
    backend
}

/// Asks for locks, and ends them in all ways.
async fn work(locks: LockManager, history: History, mut random: Rng) {
    for _ in 0..STEPS {
        sleep(MS * random.u32(..300)).await;
        let key = random.usize(..KEYS.len());
        let request = locks.lock(KEYS[key]).ttl(TTL).wait(4 * TTL);
        let patience = MS * random.u32(1..2_000);
        let acquired = match random.u32(..4) {
            0 => request.try_acquire().await.ok().flatten(),
            // The future may be dropped at any moment.
            1 => timeout(patience, request.acquire()).await.ok().and_then(Result::ok),
            2 => request.keep_alive().acquire().await.ok(),
            _ => request.acquire().await.ok(),
        };
        if let Some(guard) = acquired {
            history.granted(key, guard.fence(), guard.remaining());
            hold(&locks, &history, &mut random, key, guard).await;
        }
    }
}

async fn hold(
    locks: &LockManager,
    history: &History,
    random: &mut Rng,
    key: usize,
    mut guard: LockGuard,
) {
    let fence = guard.fence();
    for _ in 0..random.usize(..4) {
        tokio::select! {
            biased;
            () = guard.lost() => break,
            () = sleep(MS * random.u32(..300)) => {}
        }
        if random.u32(..3) == 0 {
            drop(guard.extend(TTL).await);
        }
        history.relies(key, fence, guard.remaining());
    }
    history.lets_go(key, fence);
    match random.u32(..4) {
        0 => drop(guard),
        1 => {
            let request: LockRequest = locks.lock(KEYS[key]).ttl(TTL);
            let lease = guard.detach();
            if let Ok(Some(adopted)) = request.adopt(&lease).await {
                guard = adopted;
                drop(guard.release().await);
            }
        }
        2 => drop(timeout(MS * random.u32(..20), guard.release()).await),
        _ => drop(guard.release().await),
    }
}

/// Leads again and again.
async fn lead(locks: LockManager, history: History, mut random: Rng, end: CancellationToken) {
    let key = random.usize(..KEYS.len());
    let election = locks.election(KEYS[key]).ttl(TTL).cancel(end).candidate("a");
    let random = Mutex::new(random);
    let led = election.lead(async |term| -> Result<()> {
        let fence = term.fence();
        history.granted(key, fence, term.remaining());
        let _stopped = LetsGo { history: &history, key, fence };
        let steps = random.lock().unwrap().usize(..6);
        for _ in 0..steps {
            let pause = MS * random.lock().unwrap().u32(..300);
            tokio::select! {
                biased;
                () = term.ending() => break,
                () = sleep(pause) => {}
            }
            history.relies(key, fence, term.remaining());
        }
        Ok(())
    });
    led.await.unwrap();
}

/// The work of a leader ends when this is dropped.
struct LetsGo<'a> {
    history: &'a History,
    key: usize,
    fence: Fence,
}

impl Drop for LetsGo<'_> {
    fn drop(&mut self) {
        self.history.lets_go(self.key, self.fence);
    }
}

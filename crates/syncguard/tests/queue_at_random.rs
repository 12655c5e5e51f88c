//! Random queues from fixed seeds: whatever the waiters and the backend do, every waiter is served
//! and no lease remains.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use support::waiters::{HOUR, MS, assert_no_queue_remains, waiter};
use support::{LOSE_REPLY, next_all, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{
    Backend, Backoff, CancellationToken, ErrorCode, Jitter, Key, LockGuard, LockManager, Operation,
};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep, timeout};

const WAITERS: usize = 30;

fn up_to(random: &mut Rng, limit: u32) -> Duration {
    MS * random.u32(..limit)
}

/// The faults of consecutive calls: some are slow, and some fail if `fails`.
fn faults(random: &mut Rng, fails: bool) -> Vec<Fault> {
    let fault = |_| {
        let delay = up_to(random, 6);
        match random.u32(..if fails { 12 } else { 6 }) {
            0 | 1 => Fault::DelayRequest(delay),
            2 | 3 => Fault::DelayReply(delay),
            6 => LOSE_REPLY,
            7 => Fault::Fail(ErrorCode::ServiceUnavailable),
            8 => Fault::LandLate(delay),
            _ => Fault::None,
        }
    };
    (0..200).map(fault).collect()
}

/// A caller that wants the key.
struct Caller {
    locks: LockManager,
    arrives: Duration,
    works: Duration,
    patience: Duration,
    leaves: Leaves,
    releases: Releases,
}

/// How a caller ends its wait early.
#[derive(Clone, Copy)]
enum Leaves {
    Never,
    Dropped,
    Cancelled,
    OutOfTime,
}

#[derive(Clone, Copy)]
enum Releases {
    Awaited,
    Dropped,
    /// The guard is dropped, not released.
    Never,
}

/// Whether a caller is inside, and the last fence.
#[derive(Default)]
struct Inside {
    taken: AtomicBool,
    fence: AtomicU64,
}

impl Caller {
    fn new(random: &mut Rng, locks: LockManager) -> Self {
        use Leaves::{Cancelled, Dropped, Never, OutOfTime};
        Self {
            locks,
            arrives: up_to(random, 40),
            works: up_to(random, 8),
            patience: up_to(random, 60),
            leaves: random
                .choice([Never, Never, Never, Never, Never, Never, Dropped, Cancelled, OutOfTime])
                .unwrap(),
            releases: random
                .choice([Releases::Awaited, Releases::Awaited, Releases::Dropped, Releases::Never])
                .unwrap(),
        }
    }

    async fn run(self, inside: Arc<Inside>, backoff: Backoff) {
        sleep(self.arrives).await;
        if let Some(guard) = self.wait(backoff).await {
            assert!(
                !inside.taken.swap(true, Ordering::SeqCst),
                "expected one holder at a time, but there are two"
            );
            let fence = guard.fence().get();
            assert!(
                inside.fence.swap(fence, Ordering::SeqCst) < fence,
                "expected a higher fence than before"
            );
            sleep(self.works).await;
            let owns = self.locks.owns(guard.id()).await.unwrap();
            assert!(owns, "expected the holder to own the lease, but it was released");
            inside.taken.store(false, Ordering::SeqCst);
            self.release(guard).await;
        }
    }

    async fn wait(&self, backoff: Backoff) -> Option<LockGuard> {
        let request = self.locks.lock("key").ttl(HOUR).wait(HOUR).backoff(backoff);
        let patience = self.patience;
        match self.leaves {
            Leaves::Never => request.acquire().await.ok(),
            Leaves::Dropped => timeout(patience, request.acquire()).await.ok()?.ok(),
            Leaves::Cancelled => {
                let token = CancellationToken::new();
                let request = request.cancel(token.clone());
                drop(Handle::current().spawn(async move {
                    sleep(patience).await;
                    token.cancel();
                }));
                request.acquire().await.ok()
            }
            Leaves::OutOfTime => request.wait(patience).acquire().await.ok(),
        }
    }

    async fn release(&self, guard: LockGuard) {
        // A release that fails goes on in the background.
        match self.releases {
            Releases::Awaited => drop(guard.release().await),
            Releases::Dropped => drop(timeout(2 * MS, guard.release()).await),
            Releases::Never => drop(guard),
        }
    }
}

/// Runs all callers. Returns the longest time for which the key was free although a waiter was
/// queued.
async fn run_all(seed: u64, backend: &FaultyBackend, processes: usize, fails: bool) -> Duration {
    let mut random = Rng::with_seed(seed);
    for operation in [Operation::Acquire, Operation::Release, Operation::Handoff] {
        next_all(backend, operation, faults(&mut random, fails));
    }
    let managers: Vec<_> = (0..processes).map(|_| LockManager::new(backend.clone())).collect();
    // Within one process, without failures, no waiter should need a timer.
    let backoff = if fails || processes > 1 { 20 * MS } else { 10_000 * MS };
    let backoff = Backoff::fixed(backoff).with_jitter(Jitter::None);
    let inside = Arc::<Inside>::default();
    let tasks: Vec<_> = (0..WAITERS)
        .map(|_| {
            let locks = managers[random.usize(..processes)].clone();
            let caller = Caller::new(&mut random, locks);
            Handle::current().spawn(caller.run(inside.clone(), backoff))
        })
        .collect();

    let (begun, key) = (Instant::now(), Key::new("key").unwrap());
    let (mut free_since, mut longest) = (None, Duration::ZERO);
    while tasks.iter().any(|run| !run.is_finished()) {
        sleep(MS).await;
        let wanted = managers.iter().any(|locks| locks.waiters() > 0);
        let idle = wanted && backend.inner().get(&key).await.unwrap().is_none();
        free_since = idle.then(|| free_since.unwrap_or_else(Instant::now));
        longest = longest.max(free_since.map_or(Duration::ZERO, |since| since.elapsed()));
        assert!(begun.elapsed() < MS * 100_000, "seed {seed}: a waiter is stuck");
    }
    for run in tasks {
        run.await.unwrap();
    }
    for locks in &managers {
        // The undo of unanswered requests takes some time.
        while locks.shutdown().await.is_err() {
            assert!(begun.elapsed() < MS * 300_000, "seed {seed}: the shutdown hangs");
        }
        assert_no_queue_remains(locks);
    }
    sleep(100 * MS).await;
    assert!(backend.inner().get(&key).await.unwrap().is_none(), "seed {seed}: a lease remains");
    longest
}

fn each_seed(seeds: u64, fails: bool) {
    for seed in 0..seeds {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let backend = match seed % 3 {
            0 => plain(),
            1 => with_handoff(),
            _ => with_notifications_and_handoff(),
        };
        let processes = if seed % 2 == 0 { 1 } else { 2 };
        let idle = runtime.block_on(run_all(seed, &backend, processes, fails));
        // A release and an attempt each take some milliseconds here, and a pause for other
        // processes 50.
        assert!(fails || processes > 1 || idle < 80 * MS, "seed {seed}: free for {idle:?}");
    }
}

#[test]
fn w6_w7_every_waiter_is_served_on_a_slow_backend() {
    each_seed(150, false);
}

#[test]
fn w7_g6_g7_every_waiter_is_served_and_no_lease_remains_if_requests_fail() {
    each_seed(150, true);
}

/// On several threads, the handoff, the receiver that leaves, and the shutdown can meet at any
/// moment.
#[test]
fn h3_no_lease_remains_after_a_shutdown_that_meets_a_handoff() {
    let runtime = Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    for _ in 0..2_000 {
        runtime.block_on(async {
            let locks = LockManager::new(with_handoff());
            let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
            let waiter = waiter(&locks).await;
            drop(held);
            locks.shutdown().await.unwrap();
            let locked = locks.is_locked("key").await.unwrap();
            assert!(
                !locked || waiter.await.unwrap().is_ok(),
                "expected a guard for the held key, but there is none"
            );
        });
    }
}

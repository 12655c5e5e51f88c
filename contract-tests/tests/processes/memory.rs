//! Memory while the server is away and callers give up, and how soon the same backend works again.

use std::fs;
use std::time::Duration;

use contract_tests::servers::{Server, Spare};
use libtest_mimic::Trial;
use syncguard::LockManager;
use syncguard_firestore::FirestoreBackend;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::{Outcome, fresh_key, in_own_process, lock_once};

/// For how long the server is away each time.
const AWAY: Duration = Duration::from_secs(4);

/// How often an acquire begins.
const EVERY: Duration = Duration::from_millis(1);

/// When its caller gives up.
const GIVE_UP: Duration = Duration::from_millis(20);

/// How much the memory may grow, in MB.
const MOST_GROWTH: usize = 64;

/// How soon after the server is back a lock must be granted.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |backend: &'static str| {
        let name = format!("memory::c1_dropped_acquires_pile_up_nothing_on_{backend}");
        Trial::test(name, move || {
            in_own_process(&["memory", backend, &AWAY.as_secs().to_string()], &[])
        })
    };
    ["redis", "postgres", "firestore"].map(trial).into()
}

/// Runs the trial in this process. The server is away for this time, once paused and once stopped.
pub(crate) async fn alone(backend: &str, away: Duration) -> Outcome {
    match backend {
        "redis" => {
            let command = ["redis-server", "--save", "", "--protected-mode", "no"];
            let spare = Server::redis().spare(&command).await?;
            let url = spare.url.clone();
            let connect = async || Ok(LockManager::new(RedisBackend::connect(&url).await?));
            trial(backend, away, &spare, connect).await
        }
        "postgres" => {
            let spare = Server::postgres().spare(&[]).await?;
            let url = format!("{}/postgres", spare.url);
            let connect = async || {
                let backend = PostgresBackend::connect(&url).await?;
                backend.setup_schema().await?;
                Ok(LockManager::new(backend))
            };
            trial(backend, away, &spare, connect).await
        }
        "firestore" => {
            let spare = Server::firestore().spare(&[]).await?;
            let address = format!("127.0.0.1:{}", spare.port);
            let connect = async || {
                let builder = FirestoreBackend::builder().emulator(&address);
                Ok(LockManager::new(builder.connect("syncguard").await?))
            };
            trial(backend, away, &spare, connect).await
        }
        _ => Err("no such backend".into()),
    }
}

async fn trial(
    backend: &str,
    away: Duration,
    spare: &Spare,
    connect: impl AsyncFn() -> Outcome<LockManager>,
) -> Outcome {
    let locks = until_up(&connect).await;
    // So that what every process needs is there already.
    dropped_acquires(&locks, Duration::from_secs(2)).await;
    let start = megabytes();

    spare.pause().await?;
    let paused = dropped_acquires(&locks, away).await;
    spare.container.unpause().await?;
    let after_pause = granted_after(&locks).await;

    spare.container.stop_with_timeout(Some(0)).await?;
    let stopped = dropped_acquires(&locks, away).await;
    spare.container.start().await?;
    drop(until_up(&connect).await);
    let after_stop = granted_after(&locks).await;

    println!(
        "{backend}, away for {away:?} twice: {start} MB at first, {paused} MB while paused, {stopped} MB \
         while stopped; a lock {after_pause:?} and {after_stop:?} after that"
    );
    assert!(paused.max(stopped) < start + MOST_GROWTH, "{start}, {paused}, {stopped} MB");
    Ok(())
}

/// Waits until the server serves a new client, which is returned.
async fn until_up(connect: &impl AsyncFn() -> Outcome<LockManager>) -> LockManager {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let served = async {
            let locks = connect().await?;
            lock_once(&locks).await.map(|()| locks)
        };
        match served.await {
            Ok(locks) => return locks,
            Err(error) => assert!(Instant::now() < deadline, "the server does not start: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Begins an acquire each millisecond, each for a key of its own and dropped after 20 ms. Returns the
/// most memory that the process had.
async fn dropped_acquires(locks: &LockManager, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut ticks = interval(EVERY);
    let mut most = megabytes();
    for number in 0.. {
        ticks.tick().await;
        if Instant::now() >= end {
            break;
        }
        let locks = locks.clone();
        tokio::spawn(async move {
            // With a grant, the guard is dropped at once.
            let _ = timeout(GIVE_UP, locks.lock(fresh_key()).acquire()).await;
        });
        if number % 100 == 0 {
            most = most.max(megabytes());
        }
    }
    most.max(megabytes())
}

/// Returns how long it takes until a lock is granted and released.
async fn granted_after(locks: &LockManager) -> Duration {
    let back = Instant::now();
    while let Err(error) = lock_once(locks).await {
        assert!(back.elapsed() < SOON, "no lock after {SOON:?}: {error}");
    }
    assert!(back.elapsed() < SOON, "a lock after {:?}", back.elapsed());
    back.elapsed()
}

/// The memory of this process.
fn megabytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    let kilobytes: usize = size.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes / 1024
}

//! How many requests it costs to keep many leases.

use std::time::Duration;

use syncguard::LockManager;
use syncguard_bench::{Outcome, Table, short, whole};
use tokio::time::{Instant, sleep};

use crate::contestant::{LOCK_MANAGER, TTL};
use crate::store::Store;

const LEASES: usize = 10_000;
/// Twice the time in which each lease is renewed once.
const MEASURED: Duration = Duration::from_secs(20);
const TARGET: f64 = 60.0;

/// Prints a table with the requests per second. Fails if a lease is lost.
pub(crate) async fn run(store: &Store) -> Outcome {
    eprintln!("{}: {LEASES} kept leases", store.name());
    let locks = store.locks().await?;
    let mut counter = store.counter().await?;
    let began = Instant::now();
    let guards = acquire(&locks).await?;
    let acquired = began.elapsed();
    // The first renewals follow the order of the grants. From then on they are due together.
    sleep(TTL / 3).await;
    let (before, began) = (counter.commands(LOCK_MANAGER).await?, Instant::now());
    sleep(MEASURED).await;
    let (after, measured) = (counter.commands(LOCK_MANAGER).await?, began.elapsed());
    let lost = guards.iter().filter(|guard| guard.is_lost()).count();
    drop(guards);
    locks.shutdown().await?;
    let rate = before.zip(after).map(|(before, after)| (after - before) / measured.as_secs_f64());
    let mut table =
        Table::new(&["leases", "acquired in s", "lost", "requests/s", "one by one", "target"]);
    table.row(vec![
        whole(LEASES as f64),
        short(acquired.as_secs_f64()),
        lost.to_string(),
        rate.map_or_else(|| "-".to_owned(), short),
        whole(LEASES as f64 / (TTL / 3).as_secs_f64()),
        whole(TARGET),
    ]);
    print!("\n{}, leases with a TTL of 30 s that are kept alive\n\n{table}", store.name());
    if lost > 0 {
        return Err(format!("{lost} of {LEASES} leases were lost").into());
    }
    Ok(())
}

/// Acquires all leases, many at a time.
async fn acquire(locks: &LockManager) -> Outcome<Vec<syncguard::LockGuard>> {
    let mut guards = Vec::with_capacity(LEASES);
    let numbers: Vec<usize> = (0..LEASES).collect();
    for some in numbers.chunks(500) {
        let requests = some.iter().map(|number| {
            let request = locks.lock(format!("bench:kept:{number}")).ttl(TTL).keep_alive();
            tokio::spawn(request.acquire())
        });
        let requests: Vec<_> = requests.collect();
        for request in requests {
            guards.push(request.await??);
        }
    }
    Ok(guards)
}

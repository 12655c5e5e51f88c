//! The child process of the crowd.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use syncguard::LockManager;
use syncguard_bench::Outcome;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::contestant::TTL;
use crate::processes::ready;
use crate::store::Store;

/// Returns four lines: the number of served tasks, the time in milliseconds, and the growth of the
/// resident memory in KiB, when all tasks waited and at its peak.
///
/// A guard holds the key until all tasks wait. The time begins with its release.
pub(crate) async fn run(arguments: &[String]) -> Outcome<Vec<String>> {
    let [url, waiters, limit] = arguments else {
        return Err("a child got malformed arguments".into());
    };
    let (waiters, limit) = (waiters.parse()?, Duration::from_millis(limit.parse()?));
    let locks = Store::parse(url)?.locks().await?;
    let key = format!("bench:crowd:{:016x}", fastrand::u64(..));
    let guard = locks.lock(key.as_str()).ttl(TTL).keep_alive().acquire().await?;
    ready().await?;

    let before = memory("VmRSS");
    let (waiting, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut crowd = JoinSet::new();
    for _ in 0..waiters {
        let (locks, key) = (locks.clone(), key.clone());
        let (waiting, served) = (waiting.clone(), served.clone());
        crowd.spawn(async move { wait(&locks, key, limit, &waiting, &served).await });
    }
    while waiting.load(Ordering::Relaxed) < waiters {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all_wait = memory("VmRSS");

    let start = Instant::now();
    guard.release().await?;
    let all = async {
        while let Some(waiter) = crowd.join_next().await {
            waiter??;
        }
        Outcome::Ok(())
    };
    // A task that is not served in time is missing from the count, which is no error here.
    if let Ok(result) = timeout(limit, all).await {
        result?;
    }
    let time = start.elapsed();
    let growth = |now: Option<u64>| {
        let growth = now.zip(before).map(|(now, before)| now.saturating_sub(before));
        growth.map_or_else(|| "-".to_owned(), |kib| kib.to_string())
    };
    Ok(vec![
        served.load(Ordering::Relaxed).to_string(),
        time.as_millis().to_string(),
        growth(all_wait),
        growth(memory("VmHWM")),
    ])
}

async fn wait(
    locks: &LockManager,
    key: String,
    limit: Duration,
    waiting: &AtomicUsize,
    served: &AtomicUsize,
) -> Outcome {
    // Twice the limit, because this wait starts before the time of the crowd does.
    let mut acquire = pin!(locks.lock(key).ttl(TTL).wait(limit * 2).acquire());
    let first = poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context))).await;
    waiting.fetch_add(1, Ordering::Relaxed);
    let guard = match first {
        Poll::Ready(result) => result?,
        Poll::Pending => acquire.await?,
    };
    guard.release().await?;
    served.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Returns a memory figure of this process from Linux, in KiB.
fn memory(figure: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

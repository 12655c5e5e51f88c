//! Other libraries on Redis, each on one server, with the same connection options as SyncGuard.

use std::time::Duration;

use distributed_lock_core::error::LockError;
use distributed_lock_core::traits::{LockHandle, LockProviderExt};
use distributed_lock_redis::RedisLockProvider;
use fred_09::interfaces::ClientLike;
use fred_09::types::{Builder, RedisConfig};
use redis::IntoConnectionInfo;
use redis::io::tcp::TcpSettings;
use rslock::LockManager;
use syncguard_bench::Outcome;

use crate::contestant::{Contestant, TTL};

pub(super) const RSLOCK: &str = "rslock";
pub(super) const RSLOCK_EAGER: &str = "rslock, 10 ms";
pub(super) const DISTRIBUTED_LOCK: &str = "distributed-lock-redis";

/// Returns true if the contestant sends SET as a command. SyncGuard sends only scripts.
pub(super) fn sends_set(contestant: &str) -> bool {
    [RSLOCK, RSLOCK_EAGER, DISTRIBUTED_LOCK].contains(&contestant)
}

/// The longest pause between two attempts, if the benchmark chooses it. The mean is half of it.
const EAGER: Duration = Duration::from_millis(10);

/// `rslock` with its defaults. `acquire` polls without end. Between two attempts it pauses up to
/// 200 ms at random, but not after every third attempt. A refused attempt is two commands, because
/// the second deletes what the first may have set.
pub(super) fn rslock(url: &str) -> Outcome<Contestant> {
    Ok(polling(RSLOCK, rslock_manager(url)?))
}

/// `rslock` with a shorter pause after every attempt. It gets more grants and loads the server
/// more.
pub(super) fn rslock_eager(url: &str) -> Outcome<Contestant> {
    let mut locks = rslock_manager(url)?;
    locks.set_retry(u32::MAX, EAGER);
    Ok(polling(RSLOCK_EAGER, locks))
}

fn rslock_manager(url: &str) -> Outcome<LockManager> {
    let server = url.into_connection_info()?;
    let server = server.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Ok(LockManager::from_clients(vec![redis::Client::open(server)?]))
}

fn polling(name: &'static str, locks: LockManager) -> Contestant {
    Contestant::new(name, move |key| {
        let locks = locks.clone();
        async move {
            let guard = locks.acquire(key.as_str(), TTL).await?;
            Ok(async move {
                guard.release().await;
                Ok(())
            })
        }
    })
}

/// `distributed-lock-redis` in a loop of ours, with the pauses of [`rslock_eager`]. Its `acquire`
/// does not wait: on one server it tries once and reports a timeout, whatever its time limit.
///
/// The call has no time limit, because each call with one leaves a task that sleeps until the
/// limit. Each grant starts a task that renews the lease, for the first time at once. A release
/// without any work, as here, cancels that renewal in time.
pub(super) async fn distributed_lock(url: &str) -> Outcome<Contestant> {
    let client = Builder::from_config(RedisConfig::from_url(url)?)
        .with_connection_config(|connection| connection.tcp.nodelay = Some(true))
        .build()?;
    client.init().await?;
    let provider = RedisLockProvider::builder().client(client).expiry(TTL).build().await?;
    let provider = std::sync::Arc::new(provider);
    Ok(Contestant::new(DISTRIBUTED_LOCK, move |key| {
        let provider = provider.clone();
        async move {
            let handle = loop {
                match provider.acquire_lock(&key, None).await {
                    Ok(handle) => break handle,
                    Err(LockError::Timeout(_)) => {
                        tokio::time::sleep(EAGER.mul_f64(fastrand::f64())).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            Ok(async move {
                handle.release().await?;
                Ok(())
            })
        }
    }))
}

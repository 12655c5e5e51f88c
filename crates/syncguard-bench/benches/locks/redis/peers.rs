//! Other libraries on Redis, each on one server, with the connection that SyncGuard has.

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

/// SyncGuard sends nothing but scripts.
pub(super) fn sends_set(contestant: &str) -> bool {
    [RSLOCK, RSLOCK_EAGER, DISTRIBUTED_LOCK].contains(&contestant)
}

/// The longest pause between two attempts, where it is ours to choose; the mean is half of it.
const EAGER: Duration = Duration::from_millis(10);

/// As it comes: `acquire` polls without end. Between two attempts it pauses up to 200 ms, at random,
/// but not after every third one. An attempt that is refused is two commands: the second deletes
/// what the first may have set.
pub(super) fn rslock(url: &str) -> Outcome<Contestant> {
    Ok(polling(RSLOCK, rslock_manager(url)?))
}

/// With shorter pauses, one after every attempt: it gets more of the lock, and loads the server more.
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

/// Its `acquire` does not wait, whatever its time limit: on one server it tries once, and says that
/// the time is up. So the loop is ours, with the pauses of [`rslock_eager`].
///
/// No time limit, since each call with one leaves a task behind that sleeps until then. With each
/// grant it starts a task that renews the lease, the first time at once; where the key is given back
/// without any work, as here, that is called off in time.
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

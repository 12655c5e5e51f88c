//! Redis: beside `SET NX PX` and a compare-and-delete, and what the scripts cost the server.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, ConfigInterface, KeysInterface, LuaInterface};
use fred::types::config::Config;
use fred::types::{Builder, Expiration, InfoKind, SetOptions};
use syncguard_core::{Acquired, Backend, Key, LockId, Ttl};
use syncguard_redis::{LockManager, RedisBackend};

use crate::measure::{Contestant, Outcome, compare, locks_of};

const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

pub(crate) async fn run(url: &str) -> Outcome {
    let client = Builder::from_config(Config::from_url(url)?)
        .with_connection_config(|connection| connection.tcp.nodelay = Some(true))
        .build()?;
    client.init().await?;
    let backend = RedisBackend::new(client.clone())?;
    let ttl = Ttl::try_from(Duration::from_secs(30))?;

    println!("Redis: acquire and release");
    let sha: String = client.script_load(COMPARE_AND_DELETE).await?;
    let floor = client.clone();
    let contestants = [
        Contestant::new("SET NX PX, compare-and-delete", move |key| {
            set_and_delete(floor.clone(), key, sha.clone())
        }),
        locks_of("backend alone", &backend)?,
        Contestant::of(LockManager::new(backend.clone())),
    ];
    compare(&contestants, &[1, 16, 64]).await?;
    scripts(&client, &backend, ttl).await
}

async fn set_and_delete(client: Client, key: String, sha: String) -> Outcome {
    let id = LockId::random()?;
    let (expire, options) = (Some(Expiration::PX(30_000)), Some(SetOptions::NX));
    let set: Option<String> =
        client.set(format!("floor:{key}"), id.as_str(), expire, options, false).await?;
    if set.is_none() {
        return Err("the key is held".into());
    }
    let _: i64 = client.evalsha(sha, format!("floor:{key}"), id.as_str()).await?;
    Ok(())
}

/// What one call of each script costs on the server, by its own count.
async fn scripts(client: &Client, backend: &RedisBackend, ttl: Ttl) -> Outcome {
    const CALLS: usize = 20_000;
    println!("Redis: microseconds on the server per call");
    let mut leases = Vec::new();
    client.config_resetstat().await?;
    for call in 0..CALLS {
        let key = Key::new(&format!("bench:cost:{call}"))?;
        if let Acquired::Granted(lease) = backend.acquire(&key, &LockId::random()?, ttl).await? {
            leases.push(lease);
        }
    }
    report(client, "acquire", "evalsha").await?;
    for lease in &leases {
        backend.extend(lease, ttl).await?;
    }
    report(client, "extend", "evalsha").await?;
    for lease in &leases {
        backend.release(lease).await?;
    }
    report(client, "release", "evalsha").await?;
    for call in 0..CALLS {
        let key = format!("floor:cost:{call}");
        let expire = Some(Expiration::PX(30_000));
        client.set::<(), _, _>(key, "x", expire, Some(SetOptions::NX), false).await?;
    }
    report(client, "SET NX PX", "set").await?;
    let sha: String = client.script_load(COMPARE_AND_DELETE).await?;
    for call in 0..CALLS {
        let _: i64 = client.evalsha(&sha, format!("floor:cost:{call}"), "x").await?;
    }
    report(client, "compare-and-delete", "evalsha").await
}

async fn report(client: &Client, name: &str, command: &str) -> Outcome {
    let stats: String = client.info(Some(InfoKind::CommandStats)).await?;
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let cost = line.and_then(|line| line.split("usec_per_call=").nth(1)?.split(',').next());
    println!("{name:>28} {:>10}", cost.unwrap_or("not counted"));
    client.config_resetstat().await?;
    Ok(())
}

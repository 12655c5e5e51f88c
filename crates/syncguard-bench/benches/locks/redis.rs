//! Redis, compared with `SET NX PX` and a compare-and-delete, and with other libraries.

use fred::clients::Client;
use fred::interfaces::{ClientLike, ConfigInterface};
use fred::types::config::Config;
use fred::types::{Builder, InfoKind};
use syncguard_bench::Outcome;
use syncguard_redis::RedisBackend;

use crate::choice::Choice;
use crate::contestant::{Contestant, LOCK_MANAGER};
use crate::options::Pace;
use crate::uncontended::compare;

mod commands;
mod cost;
mod floor;
mod peers;

pub(crate) use commands::Commands;

pub(crate) const ON_THE_HOT_KEY: &[&str] =
    &[LOCK_MANAGER, peers::RSLOCK, peers::RSLOCK_EAGER, peers::DISTRIBUTED_LOCK];

pub(crate) async fn about(url: &str) -> Outcome<String> {
    let client = connect(url).await?;
    let server: String = client.info(Some(InfoKind::Server)).await?;
    let version = server.lines().find_map(|line| line.strip_prefix("redis_version:"));
    let (_, appendonly): (String, String) = client.config_get("appendonly").await?;
    let (_, save): (String, String) = client.config_get("save").await?;
    let version = version.unwrap_or("of unknown version");
    Ok(format!("Redis {version}: appendonly {appendonly}, save \"{save}\""))
}

pub(crate) async fn uncontended(url: &str, pace: Pace) -> Outcome {
    let client = connect(url).await?;
    let backend = RedisBackend::new(client.clone())?;
    let contestants = [
        floor::set_and_delete(&client).await?,
        Contestant::backend_alone(backend.clone())?,
        Contestant::lock_manager(backend.clone()),
        contestant(url, peers::RSLOCK).await?,
        contestant(url, peers::DISTRIBUTED_LOCK).await?,
    ];
    compare("Redis", &contestants, &[1, 4, 16, 64, 256], pace).await?;
    let alone = RedisBackend::builder().without_group_commit().build(client.clone())?;
    let each = Contestant::lock_manager(alone);
    let [floor, _, combined, rslock, _] = &contestants;
    let compared = [("an operation a call", &each), ("SyncGuard", combined)];
    let others = [(floor.name, floor), (rslock.name, rslock)];
    cost::print_cpu(&client, &[compared, others].concat(), pace).await?;
    cost::print(&client, &backend).await
}

pub(crate) async fn contestant(url: &str, name: &str) -> Outcome<Contestant> {
    match name {
        LOCK_MANAGER => Ok(Contestant::lock_manager(backend(url).await?)),
        peers::RSLOCK => peers::rslock(url),
        peers::RSLOCK_EAGER => peers::rslock_eager(url),
        peers::DISTRIBUTED_LOCK => peers::distributed_lock(url).await,
        _ => Err(format!("no contestant {name} on Redis").into()),
    }
}

pub(crate) async fn backend(url: &str) -> Outcome<RedisBackend> {
    Ok(RedisBackend::connect(url).await?)
}

/// Connects with chosen lanes and caps.
pub(crate) async fn chosen(url: &str, choice: Choice) -> Outcome<RedisBackend> {
    let builder = RedisBackend::builder();
    let builder = match choice.lanes {
        Some((lanes, most)) => builder.group_commit(lanes, most),
        None => builder.without_group_commit(),
    };
    Ok(builder.connect(url).await?)
}

/// Connects with the same options as SyncGuard, which sends small packets at once.
async fn connect(url: &str) -> Outcome<Client> {
    let client = Builder::from_config(Config::from_url(url)?)
        .with_connection_config(|connection| connection.tcp.nodelay = Some(true))
        .build()?;
    client.init().await?;
    Ok(client)
}

//! Trials of the Redis backend beyond the contract suite.

#![allow(clippy::unwrap_used, reason = "an assertion of a trial may panic")]

mod crowd;
mod errors;
mod failover;
mod faults;
mod group_commit;
mod handoff;
mod moving_slot;
mod nodes;
mod notifications;
mod preflight;
mod publishing;
mod records;
mod recovery;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use syncguard_redis::fred::error::Error as RedisError;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::prelude::{Builder, Client, Config, Value};
use syncguard_redis::fred::types::{ClusterHash, CustomCommand};
use syncguard_redis::{
    Acquired, Backend, ErrorCode, Key, Lease, LockId, RedisBackend, Result, Ttl,
};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use contract_tests::limited;
use contract_tests::servers::Server;

/// The result of a trial. Most trials fail by an assertion, not by an error.
type Outcome<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LONG: Duration = Duration::from_secs(3_600);

/// Returns the trials that only Redis has.
pub(crate) fn trials(runtime: &Handle, server: &Arc<Server>) -> Vec<Trial> {
    let cases = Cases { runtime: runtime.clone(), server: server.clone() };
    let mut all = records::trials(&cases);
    all.extend(faults::trials(&cases));
    all.extend(group_commit::trials(&cases));
    all.extend(handoff::trials(&cases));
    all.extend(notifications::trials(&cases));
    all.extend(moving_slot::trials(&cases));
    all.extend(crowd::trials(&cases));
    all.extend(recovery::trials(&cases));
    all.extend(failover::trials(&cases));
    all.extend(errors::trials(&cases));
    all.extend(preflight::trials(&cases));
    all.extend(publishing::trials(&cases));
    all
}

struct Cases {
    runtime: Handle,
    server: Arc<Server>,
}

impl Cases {
    fn trial<F>(&self, name: &str, case: fn(Arc<Server>) -> F) -> Trial
    where
        F: Future<Output = Outcome> + 'static,
    {
        let (runtime, server) = (self.runtime.clone(), self.server.clone());
        Trial::test(format!("redis::{name}"), move || {
            let outcome = runtime.block_on(limited(case(server)))?;
            outcome.map_err(|error| Failed::from(error.to_string()))
        })
    }
}

/// A client beside the backend that reads and changes stored data.
#[derive(Clone)]
struct Raw(Client);

impl Raw {
    async fn connect(url: &str) -> std::result::Result<Self, RedisError> {
        let mut builder = Builder::from_config(Config::from_url(url)?);
        // A command on a connection that was closed would otherwise wait for ever.
        builder.with_performance_config(|performance| {
            performance.default_command_timeout = Duration::from_secs(20);
        });
        let client = builder.build()?;
        client.init().await?;
        Ok(Self(client))
    }

    async fn run(&self, words: &[&str]) -> Value {
        self.try_run(words).await.unwrap()
    }

    async fn try_run(&self, words: &[&str]) -> std::result::Result<Value, RedisError> {
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
        let (name, args) = words.split_first().unwrap();
        let command = CustomCommand::new(name.as_string().unwrap(), ClusterHash::FirstKey, false);
        self.0.custom(command, args.to_vec()).await
    }

    /// Returns the answer as text, or `None` for nil.
    async fn text(&self, words: &[&str]) -> Option<String> {
        self.run(words).await.as_string()
    }

    async fn number(&self, words: &[&str]) -> i64 {
        self.run(words).await.as_i64().unwrap()
    }

    /// Returns whether a cluster of this server has sharded pub/sub, which Redis has since version 7.
    async fn has_sharded_channels(&self) -> bool {
        self.try_run(&["PUBSUB", "SHARDCHANNELS"]).await.is_ok()
    }

    /// Returns how often clients sent this command since the counts were reset.
    async fn calls(&self, command: &str) -> u64 {
        let stats = self.text(&["INFO", "commandstats"]).await.unwrap();
        let start = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    }
}

/// Connects to a server that reported that it is ready, but may not accept clients yet.
async fn raw(url: &str) -> Raw {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Raw::connect(url).await {
            Ok(raw) => return raw,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn fresh_key() -> Key {
    Key::new(&format!("redis-{}", fresh_id().as_str())).unwrap()
}

fn fresh_id() -> LockId {
    LockId::random().unwrap()
}

fn ttl(duration: Duration) -> Ttl {
    duration.try_into().unwrap()
}

fn long() -> Ttl {
    ttl(LONG)
}

#[track_caller]
fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Held { .. } => panic!("a free key was not granted"),
    }
}

/// Acquires a key that must be free.
async fn take(backend: &RedisBackend, key: &Key) -> Result<Lease> {
    Ok(granted(backend.acquire(key, &fresh_id(), long()).await?))
}

#[track_caller]
fn assert_code<T: Debug>(outcome: Result<T>, expected: ErrorCode) {
    match outcome {
        Err(error) => assert_eq!(error.code(), expected, "{error}: {error:?}"),
        Ok(value) => panic!("expected {expected}, got {value:?}"),
    }
}

//! Runs the contract suite and its controls on every backend, and the trials of single backends.

mod crowd;
mod firestore;
mod log;
mod postgres;
mod readme;
mod redis;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contract_tests::servers::Server;
use contract_tests::{controls, trials};
use libtest_mimic::Arguments;
use syncguard_memory::{Backend, Capabilities, Clock, Error, MemoryBackend};
use syncguard_redis::{RedisBackend, RedisBackendBuilder};

fn main() -> std::io::Result<ExitCode> {
    let mut args = Arguments::from_args();
    // Trials mostly wait for a lease to end or for a server, so many can run at a time.
    args.test_threads.get_or_insert(32);

    let runtime = tokio::runtime::Runtime::new()?;
    // A server removes its container when it is dropped, which needs the runtime.
    let _inside = runtime.enter();
    let firestore = Arc::new(Server::firestore());
    // With default timeouts, a trial of recovery does not share an emulator with fifty racers.
    let quiet_firestore = Arc::new(Server::firestore());
    let redis = Arc::new(Server::redis());

    let mut all = controls();

    let memory = MemoryBackend::new();
    let capabilities = memory.capabilities();
    all.extend(trials(runtime.handle(), "memory", capabilities, move || {
        let client = memory.clone();
        async move { Ok::<_, Error>(client) }
    }));

    let clients = redis.clients(|url| async move { patient().connect(&url).await });
    let capabilities = Capabilities::new(Clock::Server)
        .with_end_at_ttl()
        .with_handoff()
        .with_notifications()
        .with_publishing();
    all.extend(trials(runtime.handle(), "redis", capabilities, clients));
    let one_lane = |url: String| async move { patient().group_commit(1, 100).connect(&url).await };
    all.extend(trials(runtime.handle(), "redis_one_lane", capabilities, redis.clients(one_lane)));
    let alone = |url: String| async move { patient().without_group_commit().connect(&url).await };
    all.extend(trials(runtime.handle(), "redis_alone", capabilities, redis.clients(alone)));
    all.extend(redis::trials(runtime.handle(), &redis));

    all.extend(postgres::trials(runtime.handle()));
    all.extend(firestore::trials(runtime.handle(), &firestore, &quiet_firestore));
    all.extend(readme::trials(runtime.handle()));
    all.sort_by_key(|trial| has_default_limits(trial.name()));

    Ok(libtest_mimic::run(&args, all).exit_code())
}

/// Whether a trial has the time limits of a backend in use, a few seconds. Such trials come last: they
/// mostly wait, and share the machine only with each other.
fn has_default_limits(trial: &str) -> bool {
    ["::away::", "::connections::", "::failover::", "::overload::", "::readme::", "::recovery::"]
        .iter()
        .any(|section| trial.contains(section))
}

/// A Redis backend whose commands do not time out on a busy machine.
fn patient() -> RedisBackendBuilder {
    RedisBackend::builder().command_timeout(Duration::from_secs(30))
}

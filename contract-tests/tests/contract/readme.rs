//! What the snippets of the README do, on a server that restarts between two calls.

#![allow(clippy::unwrap_used, reason = "an assertion of a trial may panic")]

use std::error::Error as StdError;
use std::time::Duration;

use contract_tests::limited;
use contract_tests::servers::{Server, Spare};
use libtest_mimic::{Failed, Trial};
use syncguard::{Error, Fence, LockManager, Result};
use syncguard_firestore::FirestoreBackend;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;
use tokio::runtime::Handle;
use tokio::time::sleep;

type Outcome<T = ()> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

pub(crate) fn trials(runtime: &Handle) -> Vec<Trial> {
    fn trial<F: Future<Output = Outcome> + 'static>(
        runtime: &Handle,
        backend: &str,
        case: fn() -> F,
    ) -> Trial {
        let runtime = runtime.clone();
        Trial::test(format!("{backend}::readme::a_restart_is_survived"), move || {
            let outcome = runtime.block_on(limited(case()))?;
            outcome.map_err(|error| Failed::from(error.to_string()))
        })
    }
    vec![
        trial(runtime, "redis", on_redis),
        trial(runtime, "postgres", on_postgres),
        trial(runtime, "firestore", on_firestore),
    ]
}

const KEY: &str = "report:daily";

async fn on_redis() -> Outcome {
    // Without this, the server forgets its fence counters, and the manager refuses a fence that repeats.
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let command = [&["redis-server", "--protected-mode", "no"][..], &durable].concat();
    let spare = Server::redis().spare(&command).await?;
    let connect = async || Ok(LockManager::new(RedisBackend::connect(&spare.url).await?));
    survives_a_restart(&spare, connect, KEY).await
}

async fn on_postgres() -> Outcome {
    let spare = Server::postgres().spare(&[]).await?;
    let connect = async || {
        let backend = PostgresBackend::connect(&format!("{}/postgres", spare.url)).await?;
        backend.setup_schema().await?;
        Ok(LockManager::new(backend))
    };
    survives_a_restart(&spare, connect, KEY).await
}

async fn on_firestore() -> Outcome {
    let spare = Server::firestore().spare(&[]).await?;
    let connect = async || {
        let builder = FirestoreBackend::builder().emulator(format!("127.0.0.1:{}", spare.port));
        Ok(LockManager::new(builder.connect("my-project").await?))
    };
    // An emulator forgets its fence counters, which Firestore does not.
    survives_a_restart(&spare, connect, "report:weekly").await
}

/// Runs the snippets before and after a restart, with the same manager. `later` is the key after it.
async fn survives_a_restart(
    spare: &Spare,
    connect: impl AsyncFn() -> Result<LockManager>,
    later: &str,
) -> Outcome {
    let locks = until_done(&connect).await?;
    let before = until_done(&async || write_report(&locks, KEY).await).await?;
    assert!(until_done(&async || mail(&locks).await).await?);

    spare.container.stop_with_timeout(Some(0)).await?;
    let error = write_report(&locks, KEY).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    spare.container.start().await?;
    let after = until_done(&async || write_report(&locks, later).await).await?;
    assert!(later != KEY || after > before, "{after} after {before}");
    assert!(until_done(&async || mail(&locks).await).await?);
    Ok(locks.shutdown().await?)
}

/// Tries again while the server starts, or the machine is too busy for the default limits.
async fn until_done<T>(call: &impl AsyncFn() -> Result<T>) -> Result<T> {
    loop {
        match call().await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(50)).await,
            done => return done,
        }
    }
}

async fn write_report(locks: &LockManager, key: &str) -> Result<Fence> {
    locks
        .lock(key)
        .run(async |lock| -> std::result::Result<_, Error> {
            // One process at a time is here.
            Ok(lock.fence())
        })
        .await
}

/// Returns whether the lock was free.
async fn mail(locks: &LockManager) -> Result<bool> {
    let key = format!("mail:{}", syncguard::LockId::random()?.as_str());
    let Some(guard) = locks.lock(key).keep_alive().try_acquire().await? else {
        return Ok(false);
    };
    guard.release().await
}

//! What the driver of Redis logs. Its logger belongs to the process.

use std::sync::{Arc, Mutex};

use contract_tests::servers::Server;
use libtest_mimic::Trial;
use log::{LevelFilter, Log, Metadata, Record};
use syncguard::{LockId, LockManager};
use syncguard_redis::{Backend, Key, RedisBackend, Ttl};
use tokio::task::JoinSet;
use tokio::time::Duration;

use crate::{Outcome, fresh_key, in_own_process};

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("logs::k4_no_log_of_the_driver_of_redis_shows_a_key_or_an_id", || {
        in_own_process(&["logs"], &[])
    })]
}

/// Keeps all that is logged, at every level.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<String>>>);

impl Log for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fred")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

pub(crate) async fn alone() -> Outcome {
    let command = ["redis-server", "--save", "", "--requirepass", "hunter2"];
    let spare = Server::redis().spare(&command).await?;
    let url = format!("redis://:hunter2@127.0.0.1:{}", spare.port);
    let kept = Kept::default();
    log::set_boxed_logger(Box::new(kept.clone()))?;
    log::set_max_level(LevelFilter::Trace);

    let (key, id) = (Key::new(&fresh_key())?, LockId::random()?);
    let ttl: Ttl = Duration::from_secs(60).try_into()?;
    let backend = RedisBackend::connect(&url).await?;
    backend.acquire(&key, &id, ttl).await?;
    backend.extend_by_id(&id, ttl).await?.expect("it was granted");
    assert!(backend.get(&key).await?.is_some());
    assert!(backend.find(&id).await?.is_some());
    let mut waiting = JoinSet::new();
    // Some wait, and some share a call.
    for _ in 0..20 {
        let (locks, key) = (LockManager::new(backend.clone()), key.clone());
        waiting.spawn(async move {
            locks.lock(key).wait(Duration::from_secs(60)).acquire().await?.release().await
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(backend.release_by_id(&id).await?);
    while let Some(released) = waiting.join_next().await {
        assert!(released??);
    }

    let all = kept.0.lock().unwrap();
    assert!(all.len() > 100, "{} records: nothing was kept", all.len());
    for text in all.iter() {
        for secret in [key.as_str(), id.as_str(), "hunter2"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    Ok(())
}

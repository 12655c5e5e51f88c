//! Group commit: operations that share a call keep their own answers.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_memory::MemoryBackend;
use syncguard_redis::{
    Acquired, Backend, ErrorCode, Fence, Key, Lease, LockGuard, LockManager, RedisBackend,
};
use tokio::task::JoinSet;

use contract_tests::servers::Server;

use super::{Cases, Outcome, Raw, fresh_id, fresh_key, granted, long, ttl};

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("group_commit::one_that_fails_fails_alone", one_that_fails_fails_alone),
        cases.trial("group_commit::calls_are_shared", calls_are_shared),
        cases.trial(
            "group_commit::kept_leases_are_renewed_together",
            kept_leases_are_renewed_together,
        ),
        cases.trial(
            "group_commit::random_operations_have_the_answers_of_the_memory_backend",
            random_operations_have_the_answers_of_the_memory_backend,
        ),
    ]
}

/// One call at a time, so that whatever arrives meanwhile shares the next one.
async fn grouped(server: &Server) -> Result<RedisBackend, String> {
    let connect =
        async |url: String| RedisBackend::builder().group_commit(1, 100).connect(&url).await;
    server.client(&connect).await
}

fn lease(acquired: Acquired) -> Option<Lease> {
    match acquired {
        Acquired::Granted(lease) => Some(lease),
        Acquired::Held { .. } => None,
    }
}

async fn one_that_fails_fails_alone(server: Arc<Server>) -> Outcome {
    let (backend, raw) = (
        grouped(&server).await?,
        server.client(&async |url: String| Raw::connect(&url).await).await?,
    );
    let keys: Vec<Key> = (0..30).map(|_| fresh_key()).collect();
    for broken in keys.iter().step_by(10) {
        raw.run(&["LPUSH", &format!("syncguard:{}", broken.as_str()), "no record"]).await;
    }
    for (n, acquired) in all(&backend, &keys).await?.into_iter().enumerate() {
        match n % 10 {
            0 => assert_eq!(acquired.unwrap_err().code(), ErrorCode::Internal),
            _ => assert!(lease(acquired?).is_some()),
        }
    }
    // Nothing is wrong with the connection.
    granted(backend.acquire(&fresh_key(), &fresh_id(), long()).await?);
    Ok(())
}

/// Tries all keys at the same time.
async fn all(
    backend: &RedisBackend,
    keys: &[Key],
) -> Result<Vec<super::Result<Acquired>>, tokio::task::JoinError> {
    let mut attempts = JoinSet::new();
    for (n, key) in keys.iter().enumerate() {
        let (backend, key) = (backend.clone(), key.clone());
        attempts.spawn(async move { (n, backend.acquire(&key, &fresh_id(), long()).await) });
    }
    let mut answers = Vec::new();
    while let Some(answer) = attempts.join_next().await {
        answers.push(answer?);
    }
    answers.sort_by_key(|(n, _)| *n);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

async fn calls_are_shared(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let connect = async || RedisBackend::builder().group_commit(1, 100).connect(&own.url).await;
    let (backend, raw) = (connect().await?, Raw::connect(&own.url).await?);
    let keys: Vec<Key> = (0..400).map(|_| fresh_key()).collect();
    // The first time, the server does not know the scripts.
    all(&backend, &keys).await?;
    raw.run(&["CONFIG", "RESETSTAT"]).await;
    let keys: Vec<Key> = (0..400).map(|_| fresh_key()).collect();
    for acquired in all(&backend, &keys).await? {
        granted(acquired?);
    }
    let calls = raw.calls("evalsha").await;
    assert!(calls <= 100, "{calls} calls for 400 operations");
    Ok(())
}

/// Each task works on a key of its own, so the memory backend says what every answer must be. All tasks
/// share calls.
async fn random_operations_have_the_answers_of_the_memory_backend(server: Arc<Server>) -> Outcome {
    let backend = grouped(&server).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..24 {
        let backend = backend.clone();
        tasks.spawn(async move {
            let (memory, key) = (MemoryBackend::new().with_end_at_ttl(), fresh_key());
            let ids = [fresh_id(), fresh_id(), fresh_id()];
            let mut leases: [Option<(Lease, Lease)>; 3] = [const { None }; 3];
            for _ in 0..60 {
                let n = fastrand::usize(..ids.len());
                let id = &ids[n];
                match (fastrand::u8(..5), leases[n].clone()) {
                    (0 | 1, _) => {
                        let stored = lease(backend.acquire(&key, id, long()).await?);
                        let modelled = lease(memory.acquire(&key, id, long()).await?);
                        let fence = |lease: &Option<Lease>| lease.as_ref().map(Lease::fence);
                        assert_eq!(fence(&stored), fence(&modelled));
                        leases[n] = stored.zip(modelled).or(leases[n].take());
                    }
                    (2, Some((stored, modelled))) => {
                        let ttl = ttl(Duration::from_secs(600));
                        let renewed = backend.extend(&stored, ttl).await?.is_some();
                        assert_eq!(renewed, memory.extend(&modelled, ttl).await?.is_some());
                    }
                    (3, Some((stored, modelled))) => {
                        let released = backend.release(&stored).await?;
                        assert_eq!(released, memory.release(&modelled).await?);
                    }
                    (4, Some(_)) => {
                        let found: Option<Fence> =
                            backend.find(id).await?.map(|record| record.fence());
                        let modelled = memory.find(id).await?.map(|record| record.fence());
                        assert_eq!(found, modelled);
                    }
                    _ => {}
                }
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Leases with one TTL are due together, so their renewals share calls.
async fn kept_leases_are_renewed_together(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let backend = RedisBackend::connect(&own.url).await?;
    let raw = Raw::connect(&own.url).await?;
    let locks = LockManager::builder(backend).ttl(Duration::from_secs(9)).keep_alive().build();
    let mut guards = Vec::new();
    for _ in 0..1_000 {
        guards.push(locks.lock(fresh_key()).acquire().await?);
    }
    raw.run(&["CONFIG", "RESETSTAT"]).await;
    let first: Vec<_> = guards.iter().map(LockGuard::expires_at).collect();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let calls = raw.calls("evalsha").await;
    for (guard, first) in guards.iter().zip(first) {
        assert!(!guard.is_lost());
        assert!(guard.expires_at().as_millis() >= first.as_millis() + 3_000);
    }
    assert!(calls <= 500, "{calls} calls for two renewals of 1,000 leases");
    drop(guards);
    locks.shutdown().await?;
    Ok(())
}

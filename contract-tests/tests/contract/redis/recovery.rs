//! Recovery: the same backend, with default settings, works again after a fault.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::prelude::{Builder, Config};
use syncguard_redis::{Backend, ErrorCode, LockManager, RedisBackend, Sent};
use tokio::time::{Instant, sleep, timeout};

use super::faults::{every_operation, spare};
use super::notifications::{PATIENCE, until};
use super::{Cases, Outcome, assert_code, fresh_id, fresh_key, granted, long, raw, take, ttl};
use contract_tests::forwarder::Forwarder;
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("recovery::f1_a_silent_connection_is_replaced_and_no_lease_is_lost", silent),
        cases.trial("recovery::f1_callers_that_give_up_have_it_replaced_too", silent_for_no_one),
        cases.trial("recovery::f2_a_demoted_master_is_left", demoted),
        cases.trial("recovery::f2_a_master_without_replicas_is_left", without_replicas),
        cases.trial("recovery::f2_a_client_without_a_policy_survives_a_restart", restart),
        cases.trial("recovery::f2_a_changed_password_is_reported_and_recovered_from", password),
        cases.trial("recovery::f4_a_full_server_renews_and_releases", full),
        cases.trial("recovery::c1_nothing_is_sent_while_the_server_is_away", away),
        cases.trial("recovery::f3_a_backend_outlives_its_runtime", runtimes),
        cases.trial("recovery::f3_no_runtime_is_an_error_and_no_panic", no_runtime),
    ]
}

/// The command timeout by default.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Calls the backend until a call succeeds, and returns how long that took.
async fn works_after(backend: &RedisBackend, pause: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let (key, id) = (fresh_key(), fresh_id());
        match backend.acquire(&key, &id, long()).await {
            Ok(_) => return start.elapsed(),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                assert!(start.elapsed() < PATIENCE, "{error}");
            }
        }
        sleep(pause).await;
    }
}

async fn silent(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", spare.port)).await?;
    let url = format!("redis://127.0.0.1:{}", forwarder.port());
    let backend = RedisBackend::connect(&url).await?;
    let locks = LockManager::new(backend.clone());
    let mut kept = Vec::new();
    for seconds in [10, 30] {
        let lease = locks.lock(fresh_key()).ttl(Duration::from_secs(seconds)).keep_alive();
        kept.push(lease.acquire().await?);
    }
    forwarder.silence_open();
    // Each call is a write, which is no sign that the connection works.
    let took = works_after(&backend, Duration::from_secs(1)).await;
    assert!(took < TIMEOUT * 2, "{took:?}");
    // Whoever called in the meantime is past it as well, and the leases are renewed.
    let before: Vec<_> = kept.iter().map(|guard| guard.expires_at()).collect();
    for (guard, before) in kept.iter().zip(before) {
        until("not renewed", async || guard.expires_at() > before).await;
        assert!(!guard.is_lost());
    }
    // Only a keep-alive uses the connection.
    let connections = forwarder.accepted();
    forwarder.silence_open();
    until("not replaced", async || forwarder.accepted() > connections).await;
    let before = kept[0].expires_at();
    until("not renewed", async || kept[0].expires_at() > before).await;
    for guard in kept {
        assert!(!guard.is_lost());
        assert!(guard.release().await?);
    }
    Ok(())
}

async fn silent_for_no_one(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", spare.port)).await?;
    let url = format!("redis://127.0.0.1:{}", forwarder.port());
    let backend = RedisBackend::connect(&url).await?;
    take(&backend, &fresh_key()).await?;
    forwarder.silence_open();
    let start = Instant::now();
    let mut served = false;
    while !served {
        assert!(start.elapsed() < PATIENCE, "no caller was served");
        let (key, id) = (fresh_key(), fresh_id());
        let attempt = backend.acquire(&key, &id, long());
        served = timeout(Duration::from_millis(500), attempt).await.is_ok_and(|done| done.is_ok());
    }
    Ok(())
}

async fn demoted(server: Arc<Server>) -> Outcome {
    let (old, new) = (spare(&server, &[]).await?, spare(&server, &[]).await?);
    let (old_raw, _) = (raw(&old.url).await, raw(&new.url).await);
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", old.port)).await?;
    let url = format!("redis://127.0.0.1:{}", forwarder.port());
    let backend = RedisBackend::connect(&url).await?;
    take(&backend, &fresh_key()).await?;
    // The old master keeps its connections, and answers all writes with an error.
    forwarder.switch_to(format!("127.0.0.1:{}", new.port));
    old_raw.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_code(take(&backend, &fresh_key()).await, ErrorCode::ServiceUnavailable);
    every_operation(&backend, &fresh_key()).await
}

async fn without_replicas(server: Arc<Server>) -> Outcome {
    let (old, new) = (spare(&server, &[]).await?, spare(&server, &[]).await?);
    let (old_raw, _) = (raw(&old.url).await, raw(&new.url).await);
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", old.port)).await?;
    let url = format!("redis://127.0.0.1:{}", forwarder.port());
    let backend = RedisBackend::connect(&url).await?;
    take(&backend, &fresh_key()).await?;
    // So answers a master that is cut off from its replicas, one of which was promoted.
    forwarder.switch_to(format!("127.0.0.1:{}", new.port));
    old_raw.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    assert_code(take(&backend, &fresh_key()).await, ErrorCode::ServiceUnavailable);
    every_operation(&backend, &fresh_key()).await
}

/// The example of the crate's first page, which sets no reconnect policy.
async fn restart(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--appendonly", "yes", "--appendfsync", "always"]).await?;
    raw(&spare.url).await;
    let url = format!("redis://127.0.0.1:{}", spare.port);
    let builder = Builder::from_config(Config::from_url(&url)?);
    let (client, pool) = (builder.build()?, builder.build_pool(4)?);
    client.init().await?;
    pool.init().await?;
    let backends =
        [RedisBackend::connect(&url).await?, RedisBackend::new(client)?, RedisBackend::new(pool)?];
    for backend in &backends {
        every_operation(backend, &fresh_key()).await?;
    }
    spare.container.stop_with_timeout(Some(0)).await?;
    for backend in &backends {
        assert_code(take(backend, &fresh_key()).await, ErrorCode::ServiceUnavailable);
    }
    spare.container.start().await?;
    raw(&spare.url).await;
    for backend in &backends {
        let took = works_after(backend, Duration::from_millis(50)).await;
        assert!(took < TIMEOUT * 2, "{took:?}");
        for _ in 0..8 {
            every_operation(backend, &fresh_key()).await?;
        }
    }
    Ok(())
}

async fn password(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--requirepass", "secret"]).await?;
    let url = format!("redis://:secret@127.0.0.1:{}", spare.port);
    let raw = raw(&url).await;
    let backend = RedisBackend::connect(&url).await?;
    take(&backend, &fresh_key()).await?;
    raw.run(&["CONFIG", "SET", "requirepass", "another"]).await;
    raw.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    // A connection that is noticed to be gone is made again, with the wrong password.
    let refused = async || {
        let outcome = take(&backend, &fresh_key()).await;
        outcome.is_err_and(|error| {
            let text = error.to_string();
            let right = error.code() == ErrorCode::AuthFailed;
            assert!(!right || text.contains(&format!("127.0.0.1:{}", spare.port)), "{text}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            right
        })
    };
    until("the wrong password is not reported", refused).await;
    raw.run(&["CONFIG", "SET", "requirepass", "secret"]).await;
    let served = async || take(&backend, &fresh_key()).await.is_ok();
    let start = Instant::now();
    until("the right password is not tried", served).await;
    assert!(start.elapsed() < TIMEOUT, "{:?}", start.elapsed());
    Ok(())
}

async fn full(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--maxmemory-policy", "noeviction"]).await?;
    let raw = raw(&spare.url).await;
    let backend = RedisBackend::connect(&spare.url).await?;
    let locks = LockManager::new(backend.clone());
    let kept = locks.lock(fresh_key()).ttl(Duration::from_secs(12)).keep_alive().acquire().await?;
    let (lease, other) = (take(&backend, &fresh_key()).await?, take(&backend, &fresh_key()).await?);
    // The server itself uses more than one byte.
    raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_code(take(&backend, &fresh_key()).await, ErrorCode::RateLimited);

    let index = format!("syncguard:id:{}", lease.id().as_str());
    let short = ttl(Duration::from_secs(600));
    for with_index in [true, false] {
        if !with_index {
            raw.run(&["DEL", &index]).await;
        }
        let extended = backend.extend(&lease, short).await?.unwrap();
        let record = backend.get(lease.key()).await?.unwrap();
        assert_eq!(record.expires_at(), extended.expires_at());
        for name in [format!("syncguard:{}", lease.key().as_str()), index.clone()] {
            let left = raw.number(&["PTTL", &name]).await;
            assert!((590_000..=600_000).contains(&left), "{left}");
        }
    }
    assert!(backend.extend_by_id(lease.id(), long()).await?.is_some());
    // A repetition of an acquire is a renewal.
    let again = granted(backend.acquire(lease.key(), lease.id(), long()).await?);
    assert_eq!(again.fence(), lease.fence());

    for _ in 0..2 {
        let before = kept.expires_at();
        until("not renewed", async || kept.expires_at() > before).await;
    }
    assert!(!kept.is_lost());
    assert!(kept.release().await?);
    assert!(backend.release(&lease).await?);
    assert!(backend.release_by_id(other.id()).await?);
    raw.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    take(&backend, lease.key()).await?;
    Ok(())
}

async fn away(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", spare.port)).await?;
    let url = format!("redis://127.0.0.1:{}", forwarder.port());
    let backend = RedisBackend::connect(&url).await?;
    take(&backend, &fresh_key()).await?;
    // From now on, connections are closed at once.
    forwarder.switch_to("127.0.0.1:1");
    forwarder.cut();
    until("still connected", async || take(&backend, &fresh_key()).await.is_err()).await;

    let mut abandoned = Vec::new();
    for _ in 0..500 {
        let (key, id, sent) = (fresh_key(), fresh_id(), Sent::default());
        {
            let mut attempt = pin!(backend.acquire_marking(&key, &id, long(), &sent));
            let first = poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await;
            assert!(first.is_pending());
        }
        assert!(!sent.is_marked());
        abandoned.push(key);
        sleep(Duration::from_millis(1)).await;
    }
    // As few connections as without the callers that left.
    assert!(forwarder.accepted() < 100, "{} connections", forwarder.accepted());

    // A waiting call is served as soon as the server is back, and no call that left.
    let (key, id, sent) = (fresh_key(), fresh_id(), Sent::default());
    let waiting = backend.acquire_marking(&key, &id, long(), &sent);
    let (outcome, ()) = tokio::join!(waiting, async {
        sleep(Duration::from_millis(200)).await;
        forwarder.switch_to(format!("127.0.0.1:{}", spare.port));
    });
    granted(outcome?);
    assert!(sent.is_marked());
    for key in abandoned {
        assert!(backend.get(&key).await?.is_none());
    }
    Ok(())
}

async fn runtimes(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let url = spare.url.clone();
    // Connected in a runtime that ends.
    let there = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let backend = RedisBackend::connect(&url).await?;
            let lease = take(&backend, &fresh_key()).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((backend, lease))
        })
    });
    let (backend, lease) = tokio::task::spawn_blocking(|| there.join().unwrap()).await??;
    assert!(backend.release(&lease).await?);
    every_operation(&backend, &fresh_key()).await?;

    // A runtime that goes on but that nobody drives costs one timeout.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (backend, runtime) = tokio::task::spawn_blocking(move || {
        let backend = runtime.block_on(RedisBackend::connect(&spare.url));
        (backend.map(|backend| (backend, spare)), runtime)
    })
    .await?;
    let (backend, _spare) = backend?;
    assert!(works_after(&backend, Duration::from_millis(50)).await < TIMEOUT * 2);
    tokio::task::spawn_blocking(|| drop(runtime)).await?;
    Ok(())
}

async fn no_runtime(server: Arc<Server>) -> Outcome {
    let connect = async |url: String| RedisBackend::connect(&url).await;
    let backend = server.client(&connect).await?;
    let outside = std::thread::spawn(move || {
        let (key, id) = (fresh_key(), fresh_id());
        let mut acquire = pin!(backend.acquire(&key, &id, long()));
        match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits for a runtime"),
        }
    });
    let outcome = tokio::task::spawn_blocking(|| outside.join().unwrap()).await?;
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidArgument);
    assert!(error.to_string().contains("runtime"), "{error}");
    Ok(())
}

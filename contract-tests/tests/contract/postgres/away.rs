//! A server that does not answer, or refuses: how soon a new connection replaces the old one, and how
//! often the server is asked.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use contract_tests::servers::Server;
use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use syncguard_postgres::{Backend, ErrorCode, PostgresBackend};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::connections::{forwarded, sessions, unique};
use super::faults::{pid, until_one_waits};
use super::listening::until_open;
use super::{
    Outcome, PATIENCE, as_user, cases, execute, fresh_id, fresh_key, lease, minute, service,
};

cases![
    f1_a_silent_connection_costs_one_command_timeout,
    a_connection_that_is_opened_too_slowly_is_overtaken,
    a_server_that_refuses_connections_is_asked_ever_less_often,
    a_full_server_is_used_over_the_connections_that_are_open,
    f2_a_connection_in_use_is_closed_if_another_session_was_refused,
];

/// Returns a backend that reaches its server through a forwarder.
async fn through_forwarder(
    server: &Server,
    connections: u32,
    limit: Duration,
) -> Outcome<(Forwarder, PostgresBackend)> {
    let (forwarder, options): (_, PgConnectOptions) = forwarded(server, &unique()).await?;
    let builder = PostgresBackend::builder().max_connections(connections).command_timeout(limit);
    Ok((forwarder, builder.build(PgPoolOptions::new().connect_lazy_with(options))?))
}

/// The next operation does not wait for an answer to the first one.
async fn f1_a_silent_connection_costs_one_command_timeout(server: Arc<Server>) -> Outcome {
    let limit = Duration::from_secs(8);
    let (forwarder, backend) = through_forwarder(&server, 1, limit).await?;
    backend.get(&fresh_key()).await?;
    forwarder.silence_open();
    let error = backend.get(&fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    let start = Instant::now();
    backend.get(&fresh_key()).await?;
    assert!(start.elapsed() < limit / 2, "{:?}", start.elapsed());
    Ok(())
}

/// After a second without success, one more connection is tried.
async fn a_connection_that_is_opened_too_slowly_is_overtaken(server: Arc<Server>) -> Outcome {
    let (forwarder, backend) = through_forwarder(&server, 1, Duration::from_secs(20)).await?;
    forwarder.silence_all();
    let start = Instant::now();
    let (key, id) = (fresh_key(), fresh_id());
    let (acquired, ()) = tokio::join!(backend.acquire(&key, &id, minute()), async {
        while forwarder.accepted() == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        forwarder.restore();
    });
    acquired?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // The slow one is given up.
    until_open(&forwarder, 1).await;
    Ok(())
}

async fn a_server_that_refuses_connections_is_asked_ever_less_often(
    server: Arc<Server>,
) -> Outcome {
    let (forwarder, backend) = through_forwarder(&server, 8, Duration::from_secs(5)).await?;
    forwarder.switch_to("127.0.0.1:1");
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let backend = backend.clone();
        callers.spawn(async move {
            loop {
                let error = backend.get(&fresh_key()).await.unwrap_err();
                assert!(error.is_transient(), "{error}");
            }
        });
    }
    let start = Instant::now();
    let ended = timeout(Duration::from_secs(3), callers.join_next()).await;
    assert!(ended.is_err(), "{ended:?}");
    let asked = forwarder.accepted();
    // Eight at first, and after each pause one: 20, 40, 80, 160, 320 ms, and then each half a second.
    let most = 8 + 5 + start.elapsed().as_millis() / 500;
    assert!(asked >= 3 && asked as u128 <= most, "{asked} connections in 3 s");
    Ok(())
}

async fn a_full_server_is_used_over_the_connections_that_are_open(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let user = unique();
    let sql = format!("CREATE ROLE {user} LOGIN PASSWORD 'secret' CONNECTION LIMIT 2");
    execute(service.pool(), sql).await?;
    execute(service.pool(), format!("GRANT SELECT ON syncguard_locks TO {user}")).await?;
    let options = as_user(&service.pool().connect_options(), &user);
    let builder = PostgresBackend::builder().max_connections(8).command_timeout(PATIENCE);
    let backend = builder.build(PgPoolOptions::new().connect_lazy_with(options))?;
    backend.get(&fresh_key()).await?;
    for _ in 0..20 {
        let mut lookups = JoinSet::new();
        for _ in 0..8 {
            let backend = backend.clone();
            lookups.spawn(async move { backend.get(&fresh_key()).await });
        }
        while let Some(found) = lookups.join_next().await {
            assert_eq!(found??, None);
        }
    }
    Ok(())
}

/// The attempt that is under way ends well, but its session is as old as the one that was refused.
async fn f2_a_connection_in_use_is_closed_if_another_session_was_refused(
    server: Arc<Server>,
) -> Outcome {
    let (service, user) = (service(&server).await?, unique());
    let on = "ON syncguard_locks, syncguard_fence_counters";
    let all = format!("GRANT SELECT, INSERT, UPDATE, DELETE {on} TO {user}");
    execute(service.pool(), format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await?;
    execute(service.pool(), all.clone()).await?;
    let options = as_user(&service.pool().connect_options(), &user).application_name(&user);
    let builder = PostgresBackend::builder().without_group_commit().command_timeout(PATIENCE);
    let backend = builder.build(PgPoolOptions::new().connect_lazy_with(options))?;

    let (key, id) = (fresh_key(), fresh_id());
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &key, minute()).await)?;
    let (acquired, refused) = tokio::join!(backend.acquire(&key, &id, minute()), async {
        until_one_waits(service.pool(), pid(&mut blocker).await?).await?;
        execute(service.pool(), format!("REVOKE INSERT {on} FROM {user}")).await?;
        let refused = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
        execute(service.pool(), all).await?;
        blocker.rollback().await?;
        Outcome::Ok(refused)
    });
    assert_eq!(refused?.unwrap_err().code(), ErrorCode::AuthFailed);
    assert!(lease(acquired)?.is_some());
    let closed = async {
        while sessions(&service, &user).await? > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        Outcome::Ok(())
    };
    timeout(Duration::from_secs(10), closed).await.map_err(|_| "the session is still there")?
}

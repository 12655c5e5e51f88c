//! Connections and servers that fail or do not answer.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::sqlx::postgres::{PgConnection, PgPool};
use syncguard_postgres::sqlx::{self, Postgres, Transaction};
use syncguard_postgres::{Backend, ErrorCode, Key, PostgresBackend, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Outcome, PATIENCE, cases, fresh_id, fresh_key, lease, minute, pool_of, service};
use contract_tests::servers::Server;

cases![
    a_connection_killed_during_an_acquire_grants_nothing,
    a_connection_killed_during_an_extend_keeps_the_lease,
    a_connection_killed_during_a_release_keeps_the_lease,
    an_acquire_that_timed_out_grants_nothing_later,
    a_release_that_timed_out_releases_nothing_later,
    time_spent_waiting_for_a_connection_shortens_the_lock_timeout,
    a_lease_survives_a_restart_of_the_server,
    a_server_that_hangs_is_an_error_after_the_timeout,
    a_backend_may_be_dropped_outside_the_runtime,
];

/// A transaction that blocks every operation on a key until it is rolled back or dropped.
struct Blocker {
    transaction: Transaction<'static, Postgres>,
    pid: i32,
}

impl Blocker {
    async fn of(pool: &PgPool, key: &Key) -> sqlx::Result<Self> {
        let mut transaction = pool.begin().await?;
        for sql in [
            "SELECT pg_advisory_xact_lock(hashtext($1))",
            "SELECT 1 FROM syncguard_locks WHERE key = $1 FOR UPDATE",
        ] {
            sqlx::query(sql).bind(key.as_str()).execute(&mut *transaction).await?;
        }
        let pid = pid(&mut transaction).await?;
        Ok(Self { transaction, pid })
    }
}

pub(super) async fn pid(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await
}

/// Waits until a connection is blocked by this one, and returns its process id.
pub(super) async fn until_one_waits(pool: &PgPool, pid: i32) -> sqlx::Result<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    loop {
        match sqlx::query_scalar(sql).bind(pid).fetch_optional(pool).await? {
            Some(waiting) => return Ok(waiting),
            None => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Returns how many connections are blocked by this one.
pub(super) async fn waiting(pool: &PgPool, pid: i32) -> sqlx::Result<i64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    sqlx::query_scalar(sql).bind(pid).fetch_one(pool).await
}

/// Waits until a backend has a connection, which can take longer than its command timeout.
pub(super) async fn connected(backend: &PostgresBackend) {
    while backend.get(&fresh_key()).await.is_err_and(|error| error.is_transient()) {}
}

/// Runs an operation that must wait for `key`, kills its connection, and returns its error code.
async fn killed<T: Send + 'static>(
    server: &Server,
    key: &Key,
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> std::result::Result<ErrorCode, Box<dyn std::error::Error + Send + Sync>> {
    let admin = super::backend(server, 3, |options| options).await?;
    let blocker = Blocker::of(admin.pool(), key).await?;
    let mut running = JoinSet::new();
    running.spawn(operation);
    let victim = until_one_waits(admin.pool(), blocker.pid).await?;
    let kill = sqlx::query("SELECT pg_terminate_backend($1)").bind(victim);
    kill.execute(admin.pool()).await?;
    let answer = running.join_next().await.expect("it was spawned")?;
    blocker.transaction.rollback().await?;
    Ok(answer.err().expect("its connection was killed").code())
}

async fn a_connection_killed_during_an_acquire_grants_nothing(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let (key, id) = (fresh_key(), fresh_id());
    let victim = backend.clone();
    let (same_key, same_id) = (key.clone(), id.clone());
    let acquire = async move { victim.acquire(&same_key, &same_id, minute()).await };
    let code = killed(&server, &key, acquire).await?;
    assert_eq!(code, ErrorCode::ServiceUnavailable);
    assert_eq!(backend.get(&key).await?, None);
    assert!(lease(backend.acquire(&key, &id, minute()).await)?.is_some());
    Ok(())
}

async fn a_connection_killed_during_an_extend_keeps_the_lease(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    let (victim, same) = (backend.clone(), held.clone());
    let extend = async move { victim.extend(&same, minute()).await };
    let code = killed(&server, &key, extend).await?;
    assert_eq!(code, ErrorCode::ServiceUnavailable);
    let record = backend.get(&key).await?.expect("it is held");
    assert_eq!(record.expires_at(), held.expires_at());
    let extended = backend.extend(&held, minute()).await?.expect("it is held");
    assert!(extended.expires_at() > held.expires_at());
    Ok(())
}

async fn a_connection_killed_during_a_release_keeps_the_lease(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    let (victim, same) = (backend.clone(), held.clone());
    let release = async move { victim.release(&same).await };
    let code = killed(&server, &key, release).await?;
    assert_eq!(code, ErrorCode::ServiceUnavailable);
    assert!(backend.get(&key).await?.is_some());
    assert!(backend.release(&held).await?);
    Ok(())
}

async fn an_acquire_that_timed_out_grants_nothing_later(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let hasty = PostgresBackend::builder();
    let hasty = hasty.command_timeout(Duration::from_secs(3)).build(service.pool().clone())?;
    connected(&hasty).await;
    let key = fresh_key();
    let blocker = Blocker::of(service.pool(), &key).await?;
    let error = hasty.acquire(&key, &fresh_id(), minute()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    // The server itself ended the wait.
    assert_eq!(waiting(service.pool(), blocker.pid).await?, 0);
    blocker.transaction.rollback().await?;
    assert_eq!(service.get(&key).await?, None);
    Ok(())
}

async fn a_release_that_timed_out_releases_nothing_later(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let hasty = PostgresBackend::builder();
    let hasty = hasty.command_timeout(Duration::from_secs(3)).build(service.pool().clone())?;
    connected(&hasty).await;
    let key = fresh_key();
    let held = lease(service.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    let mut transaction = service.pool().begin().await?;
    let pid = pid(&mut transaction).await?;
    assert!(service.release_in(&mut transaction, &held).await?);
    let error = hasty.release(&held).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    assert_eq!(waiting(service.pool(), pid).await?, 0);
    transaction.rollback().await?;
    assert!(service.get(&key).await?.is_some());
    Ok(())
}

/// The text of the blocked statement shows the lock timeout that it got.
async fn time_spent_waiting_for_a_connection_shortens_the_lock_timeout(
    server: Arc<Server>,
) -> Outcome {
    let service = service(&server).await?;
    let pool = super::pool(&server, 1, |options| options.statement_cache_capacity(0)).await?;
    // Otherwise the two attempts only look whether their keys are busy, and go out again in any order.
    let one = PostgresBackend::builder().without_group_commit().command_timeout(PATIENCE);
    let one = one.build(pool)?;
    let (first_key, key, time) = (fresh_key(), fresh_key(), Duration::from_millis(200));
    let first_blocker = Blocker::of(service.pool(), &first_key).await?;
    let blocker = Blocker::of(service.pool(), &key).await?;
    // The first attempt has the only connection until its blocker ends.
    let (first_id, id) = (fresh_id(), fresh_id());
    let first = async {
        let first = one.acquire(&first_key, &first_id, minute());
        let (first, _) = tokio::join!(first, async {
            until_one_waits(service.pool(), first_blocker.pid).await?;
            sleep(time).await;
            first_blocker.transaction.rollback().await
        });
        first
    };
    let (first, acquired, limit) = tokio::join!(first, one.acquire(&key, &id, minute()), async {
        let waiting = until_one_waits(service.pool(), blocker.pid).await?;
        let sql = "SELECT substring(query FROM 'lock_timeout'', ([0-9]+)')::bigint \
            FROM pg_stat_activity WHERE pid = $1";
        let limit: i64 = sqlx::query_scalar(sql).bind(waiting).fetch_one(service.pool()).await?;
        blocker.transaction.rollback().await?;
        Ok::<_, sqlx::Error>(limit)
    });
    assert!(lease(first)?.is_some());
    assert!(lease(acquired)?.is_some());
    let limit = Duration::from_millis(limit?.unsigned_abs());
    assert!(limit <= (PATIENCE - time) / 2, "{limit:?}");
    Ok(())
}

async fn a_lease_survives_a_restart_of_the_server(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let backend = own_service(&own.url, Duration::from_secs(2)).await?;
    let (key, id) = (fresh_key(), fresh_id());
    let held = lease(backend.acquire(&key, &id, minute()).await)?.expect("free");

    own.container.stop_with_timeout(Some(0)).await?;
    for error in [
        backend.acquire(&key, &fresh_id(), minute()).await.unwrap_err(),
        backend.extend(&held, minute()).await.unwrap_err(),
        backend.release(&held).await.unwrap_err(),
        backend.get(&key).await.unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error}");
    }
    own.container.start().await?;

    let record = loop {
        match backend.get(&key).await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
            found => break found?.expect("a lease survives a restart"),
        }
    };
    assert_eq!((record.id(), record.fence()), (&id, held.fence()));
    assert!(lease(backend.acquire(&key, &fresh_id(), minute()).await)?.is_none());
    assert!(backend.extend(&held, minute()).await?.is_some());
    assert!(backend.release(&held).await?);
    let next = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    assert!(next.fence() > held.fence());
    Ok(())
}

async fn a_server_that_hangs_is_an_error_after_the_timeout(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let backend = own_service(&own.url, Duration::from_secs(3)).await?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    own.pause().await?;
    // The first call fails on an open connection, the next ones because the pool has none left.
    let error = backend.extend(&held, minute()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout, "{error}");
    for _ in 0..3 {
        let error = backend.extend(&held, minute()).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    own.container.unpause().await?;

    loop {
        match backend.extend(&held, minute()).await {
            Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
            extended => break assert!(extended?.is_some()),
        }
    }
    Ok(())
}

async fn own_service(
    url: &str,
    command_timeout: Duration,
) -> std::result::Result<PostgresBackend, Box<dyn std::error::Error + Send + Sync>> {
    let pool = pool_of(5).connect_lazy(url)?;
    let backend = PostgresBackend::builder().command_timeout(command_timeout).build(pool)?;
    while let Err(error) = backend.setup_schema().await {
        if !error.is_transient() {
            return Err(error.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(backend)
}

/// The pool still has open connections when it is dropped.
async fn a_backend_may_be_dropped_outside_the_runtime(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
    std::thread::spawn(move || drop(backend)).join().expect("it does not panic");
    Ok(())
}

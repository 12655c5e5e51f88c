//! The connections of a backend: how many there are, who waits for them, and when they are replaced.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use contract_tests::ports::free_port;
use contract_tests::servers::Server;
use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use syncguard_postgres::sqlx::{self, AssertSqlSafe};
use syncguard_postgres::{Backend, ErrorCode, LockManager, PostgresBackend, Sent};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::faults::{pid, until_one_waits};
use super::{Outcome, PATIENCE, cases, execute, fresh_id, fresh_key, lease, minute, service};

cases![
    jobs_that_hold_all_connections_of_the_pool_keep_their_leases,
    a_renewal_does_not_wait_behind_attempts,
    an_attempt_that_waits_for_a_connection_has_sent_nothing,
    an_attempt_that_is_dropped_while_it_waits_leaves_nothing_behind,
    a_connection_that_its_caller_does_not_take_is_left_to_others,
    callers_that_give_up_leave_no_sessions_behind,
    connections_that_a_network_forgot_cost_one_short_retry,
    connections_do_not_pile_up_in_a_silent_network,
    a_stale_plan_is_transient_and_the_repeat_succeeds,
    a_changed_password_is_used_for_the_next_connection,
    a_backend_works_in_one_runtime_after_another,
];

/// Returns the options of a forwarder to this server, with a recognizable application name.
pub(super) async fn forwarded(
    server: &Server,
    name: &str,
) -> Outcome<(Forwarder, PgConnectOptions)> {
    let service = service(server).await?;
    let options = PgConnectOptions::clone(&service.pool().connect_options());
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", options.get_port())).await?;
    let options = options.host("127.0.0.1").port(forwarder.port()).application_name(name);
    Ok((forwarder, options))
}

/// Counts the sessions with this application name.
pub(super) async fn sessions(backend: &PostgresBackend, name: &str) -> sqlx::Result<i64> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    sqlx::query_scalar(sql).bind(name).fetch_one(backend.pool()).await
}

pub(super) fn unique() -> String {
    format!("a{}", fresh_id().fingerprint())
}

async fn jobs_that_hold_all_connections_of_the_pool_keep_their_leases(
    server: Arc<Server>,
) -> Outcome {
    let service = service(&server).await?;
    let pool = PgPoolOptions::new()
        .max_connections(5)
        .connect_with(PgConnectOptions::clone(&service.pool().connect_options()));
    let pool = pool.await?;
    let locks = LockManager::new(PostgresBackend::new(pool.clone()));
    let mut jobs = JoinSet::new();
    for _ in 0..5 {
        let (locks, pool) = (locks.clone(), pool.clone());
        jobs.spawn(async move {
            let request = locks.lock(fresh_key()).ttl(Duration::from_secs(12));
            request
                .run(async |_| -> Outcome {
                    let _connection = pool.acquire().await?;
                    sleep(Duration::from_secs(18)).await;
                    Ok(())
                })
                .await
        });
    }
    while let Some(job) = jobs.join_next().await {
        job??;
    }
    Ok(())
}

/// An attempt holds the only connection for attempts, because it waits for another transaction.
async fn a_renewal_does_not_wait_behind_attempts(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let one = PostgresBackend::builder().max_connections(1).command_timeout(PATIENCE);
    let one = one.build(service.pool().clone())?;
    let held = lease(one.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("free");
    let (key, id) = (fresh_key(), fresh_id());
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &key, minute()).await)?;
    let (attempt, renewed) = tokio::join!(one.acquire(&key, &id, minute()), async {
        until_one_waits(service.pool(), pid(&mut blocker).await?).await?;
        let lookup = timeout(Duration::from_millis(100), one.get(&key)).await;
        assert!(lookup.is_err(), "a lookup needs no connection for attempts");
        assert!(one.extend(&held, minute()).await?.is_some());
        assert!(one.release(&held).await?);
        blocker.rollback().await?;
        Outcome::Ok(())
    });
    renewed?;
    assert!(lease(attempt)?.is_some());
    Ok(())
}

async fn an_attempt_that_waits_for_a_connection_has_sent_nothing(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let port = free_port();
    let nobody = PgConnectOptions::clone(&service.pool().connect_options()).port(port);
    let backend = PostgresBackend::new(PgPoolOptions::new().connect_lazy_with(nobody));
    let sent = Sent::default();
    let (key, id) = (fresh_key(), fresh_id());
    let error = backend.acquire_marking(&key, &id, minute(), &sent).await.unwrap_err();
    assert_eq!((error.code(), sent.is_marked()), (ErrorCode::ServiceUnavailable, false), "{error}");
    service.acquire_marking(&key, &id, minute(), &sent).await?;
    assert!(sent.is_marked());
    Ok(())
}

async fn an_attempt_that_is_dropped_while_it_waits_leaves_nothing_behind(
    server: Arc<Server>,
) -> Outcome {
    let service = service(&server).await?;
    let one = PostgresBackend::builder().max_connections(1).command_timeout(PATIENCE);
    let one = one.build(service.pool().clone())?;
    let (blocked, key) = (fresh_key(), fresh_key());
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &blocked, minute()).await)?;
    let (blocked_id, sent) = (fresh_id(), Sent::default());
    let (attempt, others) = tokio::join!(one.acquire(&blocked, &blocked_id, minute()), async {
        until_one_waits(service.pool(), pid(&mut blocker).await?).await?;
        for _ in 0..1_000 {
            let id = fresh_id();
            let attempt = one.acquire_marking(&key, &id, minute(), &sent);
            assert!(timeout(Duration::from_micros(10), attempt).await.is_err());
        }
        blocker.rollback().await?;
        Outcome::Ok(())
    });
    attempt?;
    others?;
    // None of them runs later.
    assert!(!sent.is_marked());
    assert_eq!(one.get(&key).await?, None);
    Ok(())
}

/// Notices that a future was woken, without polling it.
#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

async fn a_connection_that_its_caller_does_not_take_is_left_to_others(
    server: Arc<Server>,
) -> Outcome {
    let service = service(&server).await?;
    let name = unique();
    let options = PgConnectOptions::clone(&service.pool().connect_options());
    let pool = PgPoolOptions::new().connect_lazy_with(options.application_name(&name));
    let backend = PostgresBackend::new(pool);
    let idle = async || -> sqlx::Result<Vec<i32>> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle'";
        sqlx::query_scalar(sql).bind(&name).fetch_all(service.pool()).await
    };
    let key = fresh_key();
    let mut lookup = Box::pin(backend.get(&key));
    let delivered = Arc::new(Woken::default());
    let waker = Waker::from(delivered.clone());
    assert!(lookup.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // If opening takes a second, the lookup is woken before, and then nothing is tested.
    delivered.0.notified().await;
    let opened = loop {
        let opened = idle().await?;
        if !opened.is_empty() {
            break opened;
        }
    };
    drop(lookup);
    backend.get(&key).await?;
    assert_eq!(idle().await?, opened);
    Ok(())
}

/// Their statements wait for another transaction, so each still needs its session when it is dropped.
async fn callers_that_give_up_leave_no_sessions_behind(server: Arc<Server>) -> Outcome {
    let (_forwarder, options) = forwarded(&server, &unique()).await?;
    let service = service(&server).await?;
    let name = options.get_application_name().expect("it was set").to_owned();
    let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(options);
    // So that each is sent as soon as there is a connection.
    let backend = PostgresBackend::builder().without_group_commit().build(pool)?;
    let key = fresh_key();
    let mut blocker = service.pool().begin().await?;
    lease(service.acquire_in(&mut blocker, &key, minute()).await)?;
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(3) || (most < 4 && start.elapsed() < PATIENCE) {
        let mut attempts = JoinSet::new();
        for _ in 0..8 {
            let (backend, key) = (backend.clone(), key.clone());
            attempts.spawn(async move {
                let id = fresh_id();
                // Long enough to be sent over a new connection.
                timeout(Duration::from_millis(400), backend.acquire(&key, &id, minute()))
                    .await
                    .is_ok()
            });
        }
        while attempts.join_next().await.is_some() {}
        most = most.max(sessions(&service, &name).await?);
    }
    // Two are reserved for renewals, and on a busy machine one more is being opened.
    assert!((4..=4 + 2 + 1).contains(&most), "{most} sessions");
    blocker.rollback().await?;
    Ok(())
}

async fn connections_that_a_network_forgot_cost_one_short_retry(server: Arc<Server>) -> Outcome {
    let (forwarder, options) = forwarded(&server, &unique()).await?;
    let backend = PostgresBackend::new(PgPoolOptions::new().connect_lazy_with(options));
    let four_at_once = async || {
        let start = Instant::now();
        let mut attempts = JoinSet::new();
        for _ in 0..4 {
            let backend = backend.clone();
            attempts.spawn(async move {
                let acquired = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
                lease(acquired).map(|lease| lease.is_some())
            });
        }
        while let Some(acquired) = attempts.join_next().await {
            assert!(acquired??, "the key was free");
        }
        Outcome::Ok(start.elapsed())
    };
    four_at_once().await?;
    forwarder.silence_open();
    sleep(Duration::from_millis(1_500)).await;
    // Half a second for the test of the old connections, and the time to open new ones.
    let took = four_at_once().await?;
    assert!(took < Duration::from_secs(3), "{took:?}");
    let took = four_at_once().await?;
    assert!(took < Duration::from_secs(1), "{took:?}");
    Ok(())
}

/// 32 tasks give up after 20 ms each, as in a service with short limits.
async fn connections_do_not_pile_up_in_a_silent_network(server: Arc<Server>) -> Outcome {
    let (forwarder, options) = forwarded(&server, &unique()).await?;
    let locks =
        LockManager::new(PostgresBackend::new(PgPoolOptions::new().connect_lazy_with(options)));
    let hurry = Duration::from_millis(20);
    let mut tasks = JoinSet::new();
    let granted = Arc::new(std::sync::atomic::AtomicU64::new(0));
    for _ in 0..32 {
        let (locks, granted) = (locks.clone(), granted.clone());
        tasks.spawn(async move {
            loop {
                let attempt = timeout(hurry, locks.lock(fresh_key()).acquire()).await;
                if let Ok(Ok(guard)) = attempt {
                    granted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let _ = timeout(hurry, guard.release()).await;
                }
            }
        });
    }
    let rate = async || {
        let before = granted.load(std::sync::atomic::Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        granted.load(std::sync::atomic::Ordering::Relaxed) - before
    };
    sleep(Duration::from_secs(1)).await;
    let usual = rate().await;
    let before = forwarder.accepted();
    forwarder.silence_all();
    sleep(Duration::from_secs(10)).await;
    let opened = forwarder.accepted() - before;
    forwarder.restore();
    // Ten and two connections, each tried for five seconds.
    assert!(opened <= 36, "{opened} connections");
    let restored = Instant::now();
    while rate().await < usual * 8 / 10 {
        // Far more than it takes: other trials share the machine.
        assert!(restored.elapsed() < PATIENCE, "not back to 80 % of {usual}/s");
    }
    println!("recovery of the throughput of Postgres after silence: {:?}", restored.elapsed());
    Ok(())
}

async fn a_stale_plan_is_transient_and_the_repeat_succeeds(server: Arc<Server>) -> Outcome {
    let (pool, _) = super::empty_schema(&server).await?;
    let backend = PostgresBackend::builder().max_connections(3).command_timeout(PATIENCE);
    let backend = backend.build(pool.clone())?;
    backend.setup_schema().await?;
    let key = fresh_key();
    lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    let all = async || tokio::join!(backend.get(&key), backend.get(&key), backend.get(&key));
    // On a busy machine, a connection may have been replaced in time.
    let mut seen = false;
    for size in 600..605 {
        while !matches!(all().await, (Ok(Some(_)), Ok(Some(_)), Ok(Some(_)))) {}
        let change =
            format!("ALTER TABLE syncguard_locks ALTER COLUMN user_key TYPE VARCHAR({size})");
        execute(&pool, change).await?;
        if let Err(error) = backend.get(&key).await {
            assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
            seen = true;
            // None of the others has a stale plan any more.
            assert!(matches!(all().await, (Ok(Some(_)), Ok(Some(_)), Ok(Some(_)))));
        }
    }
    assert!(seen, "no plan was stale");
    Ok(())
}

async fn a_changed_password_is_used_for_the_next_connection(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let user = unique();
    execute(service.pool(), format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")).await?;
    let options = super::as_user(&service.pool().connect_options(), &user);
    let pool = PgPoolOptions::new().connect_lazy_with(options.clone());
    let backend = PostgresBackend::new(pool.clone());
    let grant = format!("GRANT SELECT ON syncguard_locks TO {user}");
    execute(service.pool(), grant).await?;
    assert_eq!(backend.get(&fresh_key()).await?, None);

    execute(service.pool(), format!("ALTER ROLE {user} PASSWORD 'changed'")).await?;
    // The open connection still works. The next one does not.
    assert_eq!(backend.get(&fresh_key()).await?, None);
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).bind(&user).fetch_one(service.pool()).await?;
    let error = loop {
        let error = backend.get(&fresh_key()).await.unwrap_err();
        if !error.is_transient() {
            break error;
        }
    };
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert!(error.to_string().contains(&user), "{error}");

    pool.set_connect_options(options.password("changed"));
    assert_eq!(backend.get(&fresh_key()).await?, None);
    Ok(())
}

/// The first runtime has ended, or it still exists but does not run.
async fn a_backend_works_in_one_runtime_after_another(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let options = PgConnectOptions::clone(&service.pool().connect_options());
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
    let backend = PostgresBackend::new(pool);
    let work = std::thread::spawn(move || {
        let mut kept = Vec::new();
        for round in 0..6 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let start = Instant::now();
                let acquired = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
                let held = lease(acquired).unwrap().expect("it was free");
                assert!(backend.extend(&held, minute()).await.unwrap().is_some());
                assert!(backend.release(&held).await.unwrap());
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            });
            if round % 2 == 0 {
                kept.push(runtime);
            }
        }
    });
    tokio::task::spawn_blocking(move || work.join()).await?.expect("it does not panic");
    Ok(())
}

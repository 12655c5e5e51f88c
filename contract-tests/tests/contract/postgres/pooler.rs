//! The contract suite through PgBouncer in transaction mode, and notifications beside it.
//!
//! In this mode each transaction may run on another connection to the server, so LISTEN has no
//! effect.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgPool};
use syncguard_postgres::{Backend, Backoff, Level, LockManager, PostgresBackend};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, advance, pause, resume, sleep, timeout};

use super::notifications::{Fixture, assert_notified, listening};
use super::{
    Outcome, PATIENCE, WITHOUT_PREPARED_STATEMENTS, backend, cases, fresh_id, fresh_key, lease,
    minute, pool_of,
};
use crate::log::logging;
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

cases![
    a_pooler_is_one_warning_and_gets_no_waiter_lock,
    a_pool_of_a_pooler_is_one_warning_when_it_is_built,
    a_release_through_a_pooler_notifies_a_direct_connection,
    a_preflight_finds_a_pooler_that_breaks_prepared_statements,
];

pub(super) fn suite(runtime: &Handle, server: &Arc<Server>) -> Vec<Trial> {
    let (server, pooler) = (server.clone(), Arc::new(OnceCell::new()));
    contract_tests::trials(runtime, "postgres_pgbouncer", WITHOUT_PREPARED_STATEMENTS, move || {
        let (server, pooler) = (server.clone(), pooler.clone());
        async move {
            let direct = backend(&server, 1, |options| options).await?;
            let options = PgConnectOptions::clone(&direct.pool().connect_options());
            let pooler = pooler.get_or_try_init(async || Pooler::start(&options)).await?;
            let pool = pooler.pool(&options).await?;
            let patient = PostgresBackend::builder().command_timeout(PATIENCE);
            let backend = patient.build(pool).map_err(|error| error.to_string())?;
            backend.setup_schema().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(backend)
        }
    })
}

/// The listening connection goes through the pooler: with the options of the pool, or with its own.
async fn a_pooler_is_one_warning_and_gets_no_waiter_lock(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let pooler = Pooler::start(&fixture.options())?;
    let pooled = pooler.pool(&fixture.options()).await?;
    let through_pooler = pooler.options(&fixture.options());
    for pool in [pooled, fixture.pool.clone()] {
        let backend = fixture.named().listen_on(through_pooler.clone()).build(pool)?;
        assert!(backend.capabilities().receives_notifications());
        let (waiter, key) = (backend.clone(), fresh_key());
        let warnings = logging("syncguard_postgres", |log| async move {
            let first = waiter.notified(&key);
            detected(&waiter).await;
            let second = waiter.notified(&key);
            // The next test finds the same and logs nothing.
            pause();
            advance(Duration::from_secs(10 * 60 + 1)).await;
            resume();
            assert!(waiter.capabilities().receives_notifications(), "no new test is due");
            detected(&waiter).await;
            let both = async {
                tokio::select! { () = first => {}, () = second => {} }
            };
            assert!(timeout(Duration::from_millis(200), both).await.is_err());
            log.warnings()
        });
        let warnings = warnings.await;
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains("pooler") && warning.contains("listen_on"), "{warning}");
        assert_eq!(fixture.waiter_locks().await?, 0);
        let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' || $1 || '%'";
        assert_eq!(fixture.number(left).await?, 0);

        // Waiters still try by timer.
        let (holder, held) = fixture.holder().await?;
        let (locks, backoff) = (LockManager::new(backend), Duration::from_millis(50));
        let request = locks.lock(held.key()).wait(PATIENCE).backoff(Backoff::fixed(backoff));
        let (guard, released) = tokio::join!(request.acquire(), async {
            sleep(backoff * 2).await;
            holder.release(&held).await
        });
        assert!(released? && guard?.fence() > held.fence());
    }
    Ok(())
}

/// Waits until a test has found that no notifications arrive.
async fn detected(backend: &PostgresBackend) {
    let detected = async {
        while backend.capabilities().receives_notifications() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, detected).await.expect("the pooler was not detected");
}

async fn a_pool_of_a_pooler_is_one_warning_when_it_is_built(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let pooler = Pooler::start(&fixture.options())?;
    let pooled = pooler.pool(&fixture.options()).await?;
    let build = |notifications| {
        let (builder, pool) = (fixture.named().notifications(notifications), pooled.clone());
        logging("syncguard_postgres", |log| async move {
            let backend = builder.build(pool).unwrap();
            assert!(!backend.capabilities().receives_notifications());
            let notification = backend.notified(&fresh_key());
            assert!(timeout(Duration::from_millis(50), notification).await.is_err());
            log.warnings()
        })
    };
    let warnings = build(true).await;
    assert!(warnings.len() == 1 && warnings[0].contains("listen_on"), "{warnings:?}");
    assert_eq!(build(false).await, [""; 0]);
    Ok(())
}

async fn a_release_through_a_pooler_notifies_a_direct_connection(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let pooler = Pooler::start(&fixture.options())?;
    let pooled = pooler.pool(&fixture.options()).await?;
    let backend = fixture.named().listen_on(fixture.options()).build(pooled)?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");
    let notification = listening(&backend, &key).await;
    assert!(backend.release(&held).await?);
    assert_notified(notification).await;
    assert!(backend.capabilities().receives_notifications());
    Ok(())
}

async fn a_preflight_finds_a_pooler_that_breaks_prepared_statements(
    server: Arc<Server>,
) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let pooler = Pooler::start(&fixture.options())?;
    pooler.pool(&fixture.options()).await?;
    let pooler_mode = async |capacity| {
        let options = pooler.options(&fixture.options()).statement_cache_capacity(capacity);
        let backend = fixture.named().build(pool_of(3).connect_lazy_with(options))?;
        let findings = backend.preflight().await;
        let mode = findings.iter().find(|finding| finding.code() == "pooler-mode");
        Outcome::Ok(mode.expect("it is checked").clone())
    };
    let finding = pooler_mode(100).await?;
    assert_eq!(finding.level(), Level::Warning, "{finding}");
    assert!(finding.advice().contains("statement_cache_capacity"), "{finding}");
    assert_eq!(pooler_mode(0).await?.level(), Level::Fine);
    Ok(())
}

/// A PgBouncer process, which ends when this is dropped.
#[derive(Debug)]
struct Pooler {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Pooler {
    fn start(server: &PgConnectOptions) -> Result<Self, String> {
        Self::try_start(server).map_err(|error| {
            format!("this needs the program pgbouncer, from the package of that name ({error})")
        })
    }

    /// Returns the options for the same database through this pooler.
    fn options(&self, server: &PgConnectOptions) -> PgConnectOptions {
        // PgBouncer before 1.21 does not support prepared statements.
        PgConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database(server.get_database().unwrap_or("postgres"))
            .statement_cache_capacity(0)
    }

    async fn pool(&self, server: &PgConnectOptions) -> Result<PgPool, String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match pool_of(3).connect_with(self.options(server)).await {
                Ok(pool) => return Ok(pool),
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(format!("no connection to pgbouncer: {error}")),
            }
        }
    }

    fn try_start(server: &PgConnectOptions) -> std::io::Result<Self> {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("syncguard-pgbouncer-{port}"));
        fs::create_dir_all(&folder)?;
        let (host, server_port) = (server.get_host(), server.get_port());
        let user = server.get_username();
        let settings = folder.join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n\
                 * = host={host} port={server_port} user={user} password={password}\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = any\n\
                 pool_mode = transaction\n\
                 default_pool_size = 4\n\
                 server_round_robin = 1\n\
                 ignore_startup_parameters = extra_float_digits\n",
                password = "postgres",
            ),
        )?;
        let process = Command::new("pgbouncer")
            // PgBouncer refuses to run as root. It ignores this option for other users.
            .args(["--quiet", "--user", "nobody"])
            .arg(&settings)
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { process, port, folder })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // A failure only leaves a process or a folder behind, so it is ignored.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

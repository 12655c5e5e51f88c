//! How long locks do not work after a fault, for one caller who tries every 50 ms and one lease of 30 s
//! that is kept alive. The settings are the defaults, and the backend stays the same.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use contract_tests::servers::{Server, Spare};
use syncguard_postgres::{ErrorCode, LockGuard, LockManager, PostgresBackend};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::replicas::Replicas;
use super::{Outcome, PATIENCE, cases, fresh_key};

cases![
    f2_after_a_restart,
    f2_after_a_failover_from_a_killed_primary,
    f2_after_a_failover_from_a_hung_primary,
    f2_after_a_switchover_that_leaves_connections_to_a_standby,
    f1_after_a_server_that_hung_goes_on,
    f1_after_a_network_that_was_silent_works_again,
];

/// How long it may take on a busy machine until a caller has a lock again, besides what is expected.
const SLACK: Duration = Duration::from_secs(4);

/// The command timeout that backends have by default.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// The caller, the kept lease, and the backend behind both.
struct Service {
    locks: LockManager,
    kept: LockGuard,
    caller: JoinHandle<()>,
    granted: Arc<std::sync::Mutex<Instant>>,
}

impl Service {
    async fn start(url: &str) -> Outcome<Self> {
        let backend = PostgresBackend::connect(url).await?;
        backend.setup_schema().await?;
        let locks = LockManager::new(backend);
        let request = locks.lock(fresh_key()).ttl(Duration::from_secs(30)).keep_alive();
        let kept = request.acquire().await?;
        let granted = Arc::new(std::sync::Mutex::new(Instant::now()));
        let caller = tokio::spawn(call(locks.clone(), granted.clone()));
        let service = Self { locks, kept, caller, granted };
        // Some calls, so that connections are open and in use.
        sleep(Duration::from_millis(500)).await;
        Ok(service)
    }

    fn last_grant(&self) -> Instant {
        *self.granted.lock().expect("no thread panicked")
    }

    /// Returns how long after `fault_ended` a lock was granted.
    async fn recovery(&self, fault_ended: Instant) -> Duration {
        let recovered = async {
            while self.last_grant() <= fault_ended {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), recovered).await.expect("no lock works within a minute");
        self.last_grant() - fault_ended
    }

    /// Checks that the lease was renewed all the time, and that nothing fails any more.
    async fn end(self) -> Outcome {
        sleep(Duration::from_secs(11)).await;
        assert!(!self.kept.is_lost(), "the lease was lost");
        assert!(self.last_grant().elapsed() < Duration::from_secs(1), "calls fail again");
        self.caller.abort();
        assert!(self.kept.release().await?, "the lease was lost");
        self.locks.shutdown().await?;
        Ok(())
    }
}

/// Tries to take a lock every 50 ms, and notes when it was granted.
async fn call(locks: LockManager, granted: Arc<std::sync::Mutex<Instant>>) {
    let mut ticks = interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (locks, granted) = (locks.clone(), granted.clone());
        tokio::spawn(async move {
            // One attempt, so that the wait of the manager is not measured.
            let acquired = locks.lock(fresh_key()).try_acquire().await;
            match acquired {
                Ok(Some(guard)) => {
                    *granted.lock().expect("no thread panicked") = Instant::now();
                    let _ = guard.release().await;
                }
                Ok(None) => panic!("nobody else has this key"),
                Err(error) => assert_ne!(error.code(), ErrorCode::Internal, "{error}"),
            }
        });
    }
}

fn address(spare: &Spare) -> String {
    format!("127.0.0.1:{}", spare.port)
}

fn url(forwarder: &Forwarder) -> String {
    format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", forwarder.port())
}

fn report(what: &str, recovery: Duration) {
    println!("recovery of Postgres after {what}: {recovery:?}");
}

async fn f2_after_a_restart(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let service = Service::start(&until_up(&own).await).await?;
    own.container.stop_with_timeout(Some(0)).await?;
    sleep(Duration::from_secs(2)).await;
    own.container.start().await?;
    until_up(&own).await;
    let recovery = service.recovery(Instant::now()).await;
    report("a restart", recovery);
    assert!(recovery < SLACK, "{recovery:?}");
    service.end().await
}

/// Waits until the server accepts connections, and returns its URL.
async fn until_up(spare: &Spare) -> String {
    use syncguard_postgres::sqlx::{Connection, PgConnection};
    let url = format!("{}/postgres", spare.url);
    let up = async {
        while PgConnection::connect(&url).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, up).await.expect("the server does not start");
    url
}

async fn f2_after_a_failover_from_a_killed_primary(server: Arc<Server>) -> Outcome {
    failover(&server, false).await
}

async fn f2_after_a_failover_from_a_hung_primary(server: Arc<Server>) -> Outcome {
    failover(&server, true).await
}

async fn failover(server: &Server, hung: bool) -> Outcome {
    let replicas = Replicas::start(server).await?;
    let forwarder = Forwarder::to(address(&replicas.primary)).await?;
    let service = Service::start(&url(&forwarder)).await?;
    replicas.until_in_sync().await?;
    if hung {
        replicas.primary.pause().await?;
    } else {
        replicas.primary.container.stop_with_timeout(Some(0)).await?;
    }
    // The failover manager takes this long to notice.
    sleep(Duration::from_secs(2)).await;
    replicas.promote().await?;
    forwarder.switch_to(address(&replicas.standby));
    let recovery = service.recovery(Instant::now()).await;
    report(
        if hung { "a failover (primary hung)" } else { "a failover (primary killed)" },
        recovery,
    );
    let limit = if hung { COMMAND_TIMEOUT + SLACK } else { SLACK };
    assert!(recovery < limit, "{recovery:?}");
    service.end().await
}

/// The connections stay open and lead to a standby, as after a switchover behind one address.
async fn f2_after_a_switchover_that_leaves_connections_to_a_standby(
    server: Arc<Server>,
) -> Outcome {
    let replicas = Replicas::start(&server).await?;
    let forwarder = Forwarder::to(address(&replicas.primary)).await?;
    let service = Service::start(&url(&forwarder)).await?;
    replicas.until_in_sync().await?;
    forwarder.switch_to(address(&replicas.standby));
    forwarder.cut();
    let refused = async {
        while service.last_grant().elapsed() < Duration::from_secs(1) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), refused).await.expect("a standby grants nothing");
    forwarder.switch_to(address(&replicas.primary));
    let recovery = service.recovery(Instant::now()).await;
    report("a switchover that leaves connections to a standby", recovery);
    assert!(recovery < SLACK, "{recovery:?}");
    service.end().await
}

async fn f1_after_a_server_that_hung_goes_on(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    let service = Service::start(&until_up(&own).await).await?;
    own.pause().await?;
    sleep(Duration::from_secs(7)).await;
    own.container.unpause().await?;
    let recovery = service.recovery(Instant::now()).await;
    report("a hang of the server", recovery);
    assert!(recovery < SLACK, "{recovery:?}");
    service.end().await
}

async fn f1_after_a_network_that_was_silent_works_again(server: Arc<Server>) -> Outcome {
    let own = server.spare(&[]).await?;
    until_up(&own).await;
    let forwarder = Forwarder::to(address(&own)).await?;
    let service = Service::start(&url(&forwarder)).await?;
    forwarder.silence_all();
    sleep(Duration::from_secs(7)).await;
    forwarder.restore();
    let recovery = service.recovery(Instant::now()).await;
    report("a silent network", recovery);
    // A connection that was being opened is given up after a second.
    assert!(recovery < Duration::from_secs(1) + SLACK, "{recovery:?}");
    service.end().await
}

//! Notifications: a release notifies waiters, and only if there are waiters.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgListener, PgPool};
use syncguard_postgres::sqlx::{self, AssertSqlSafe};
use syncguard_postgres::{
    Backend, Backoff, Key, Lease, LockManager, PostgresBackend, PostgresBackendBuilder,
};

use tokio::time::{Instant, advance, pause, resume, sleep, timeout};

use super::{Outcome, PATIENCE, cases, fresh_id, fresh_key, lease, minute, pool_of};
use crate::log::{logging, warning_of_early_ends};
use contract_tests::servers::Server;

cases![
    each_kind_of_release_notifies_a_waiter,
    a_waiter_in_another_process_gets_the_lock_without_its_timer,
    a_release_without_waiters_sends_no_notification,
    an_uncommitted_release_is_not_missed_by_a_new_waiter,
    a_reconnect_wakes_all_waiters,
    connections_that_end_early_are_one_warning,
    one_connection_listens_for_all_keys_and_clones,
    no_waiter_lock_is_left_without_waiters,
    the_connection_ends_after_a_minute_without_waiters,
    the_connection_ends_with_the_backend_or_its_pool,
    another_runtime_takes_over_when_one_has_ended,
    a_refused_connection_is_tried_again,
    without_notifications_no_connection_listens,
    the_trigger_notifies_of_a_plain_delete,
];

/// A lock table for one trial, and with it a notification channel.
pub(super) struct Fixture {
    pub(super) table: String,
    pub(super) pool: PgPool,
    buckets: Mutex<HashSet<String>>,
}

impl Fixture {
    pub(super) async fn new(server: &Server) -> Outcome<Self> {
        let pool = super::backend(server, 8, |options| options).await?.pool().clone();
        let fixture = Self {
            table: format!("t_{}", fresh_id().fingerprint()),
            pool,
            buckets: Mutex::default(),
        };
        fixture.named().build(fixture.pool.clone())?.setup_schema().await?;
        Ok(fixture)
    }

    /// Returns a builder whose listening connection has a recognizable application name.
    pub(super) fn builder(&self) -> PostgresBackendBuilder {
        self.named().listen_on(self.options().application_name(&self.table))
    }

    /// Returns a builder for the tables of this trial.
    pub(super) fn named(&self) -> PostgresBackendBuilder {
        PostgresBackend::builder().lock_table(&self.table).command_timeout(PATIENCE)
    }

    /// Builds a backend whose listening connection has a recognizable application name.
    pub(super) fn waiter(&self) -> Outcome<PostgresBackend> {
        Ok(self.builder().build(self.pool.clone())?)
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::clone(&self.pool.connect_options())
    }

    /// Returns a key whose waiter lock no other key from this method shares.
    pub(super) async fn key(&self) -> sqlx::Result<Key> {
        loop {
            let key = fresh_key();
            let bucket = self.name(&key).await?.chars().take(2).collect();
            if self.buckets.lock().expect("no thread panicked").insert(bucket) {
                return Ok(key);
            }
        }
    }

    /// Returns a backend with its own pool, as another process would have, and a lease that it
    /// holds.
    pub(super) async fn holder(&self) -> Outcome<(PostgresBackend, Lease)> {
        let backend = self.named().build(pool_of(2).connect_lazy_with(self.options()))?;
        let held = lease(backend.acquire(&self.key().await?, &fresh_id(), minute()).await)?;
        Ok((backend, held.expect("it was free")))
    }

    pub(super) async fn number(&self, sql: &str) -> sqlx::Result<i64> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(&self.table);
        query.fetch_one(&self.pool).await
    }

    pub(super) async fn waiter_locks(&self) -> sqlx::Result<i64> {
        self.number(WAITER_LOCKS).await
    }

    pub(super) async fn connections(&self) -> sqlx::Result<i64> {
        self.number(CONNECTIONS).await
    }

    pub(super) async fn until(&self, sql: &str, expected: i64) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.number(sql).await? {
                found if found == expected => return Ok(()),
                found if Instant::now() > deadline => panic!("expected {expected}, found {found}"),
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn terminate(&self) -> sqlx::Result<i64> {
        self.number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE application_name = $1",
        )
        .await
    }

    /// Returns the name of a key in notifications.
    async fn name(&self, key: &Key) -> sqlx::Result<String> {
        let sql = "SELECT left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 16)";
        sqlx::query_scalar(sql).bind(key.as_str()).fetch_one(&self.pool).await
    }

    async fn delete(&self, key: &Key) -> sqlx::Result<()> {
        let sql = format!("DELETE FROM {} WHERE key = $1", self.table);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(key.as_str());
        query.execute(&self.pool).await.map(drop)
    }

    /// Starts to record the notifications of this table.
    async fn record(&self) -> sqlx::Result<Recorder> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(&format!("{}_freed", self.table)).await?;
        Ok(Recorder { listener, pool: self.pool.clone() })
    }
}

/// Counts the waiter locks of the table: shared advisory locks by which a listening session marks a
/// bucket of keys as having waiters.
pub(super) const WAITER_LOCKS: &str = "SELECT count(*) FROM pg_locks \
    WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted \
    AND classid = (hashtext($1 || '_freed')::bigint & 4294967295)::oid";

/// Counts the listening connections of the table.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";

struct Recorder {
    listener: PgListener,
    pool: PgPool,
}

impl Recorder {
    /// Returns the payloads of the notifications since the last call.
    async fn payloads(&mut self, fixture: &Fixture) -> sqlx::Result<Vec<String>> {
        let end = "SELECT pg_notify($1 || '_freed', 'end')";
        sqlx::query(end).bind(&fixture.table).execute(&self.pool).await?;
        let mut all = Vec::new();
        loop {
            match self.listener.recv().await?.payload() {
                "end" => return Ok(all),
                name => all.push(name.to_owned()),
            }
        }
    }
}

/// Waits until the waiter lock of a key is in place, and returns the next notification.
pub(super) async fn listening(backend: &PostgresBackend, key: &Key) -> Notification {
    let mut in_place = Box::pin(backend.notified(key));
    assert_notified(&mut in_place).await;
    // `in_place` is dropped after the next registration, so the waiter lock stays.
    Box::pin(backend.notified(key))
}

pub(super) type Notification = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) async fn assert_notified(notification: impl Future<Output = ()>) {
    timeout(PATIENCE, notification).await.expect("no notification arrived");
}

async fn each_kind_of_release_notifies_a_waiter(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    assert!(waiter.capabilities().receives_notifications());

    let (holder, held) = fixture.holder().await?;
    let notification = listening(&waiter, held.key()).await;
    assert!(holder.release(&held).await?);
    assert_notified(notification).await;

    let (holder, held) = fixture.holder().await?;
    let notification = listening(&waiter, held.key()).await;
    assert!(holder.release_by_id(held.id()).await?);
    assert_notified(notification).await;

    let (holder, held) = fixture.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    let mut transaction = holder.pool().begin().await?;
    assert!(holder.release_in(&mut transaction, &held).await?);
    assert!(
        timeout(Duration::from_millis(50), &mut notification).await.is_err(),
        "notified before the commit"
    );
    transaction.commit().await?;
    assert_notified(notification).await;

    // A release with statements sent as text, for a lease of the waiter's own process.
    let own =
        lease(waiter.acquire(&fixture.key().await?, &fresh_id(), minute()).await)?.expect("free");
    let notification = listening(&waiter, own.key()).await;
    let as_text = pool_of(1).connect_lazy_with(fixture.options().statement_cache_capacity(0));
    assert!(fixture.named().build(as_text)?.release(&own).await?);
    assert_notified(notification).await;
    Ok(())
}

/// The timer of the waiter is one hour, so only a notification can wake it.
async fn a_waiter_in_another_process_gets_the_lock_without_its_timer(
    server: Arc<Server>,
) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let (holder, held) = fixture.holder().await?;
    let locks = LockManager::new(waiter.clone());
    let request = locks.lock(held.key()).wait(PATIENCE);
    let request = request.backoff(Backoff::fixed(Duration::from_secs(3600)));
    let (guard, released) = tokio::join!(request.acquire(), async {
        fixture.until(WAITER_LOCKS, 1).await?;
        Outcome::Ok(holder.release(&held).await?)
    });
    assert!(released?);
    assert!(guard?.fence() > held.fence());
    Ok(())
}

async fn a_release_without_waiters_sends_no_notification(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let mut recorder = fixture.record().await?;
    let backend = fixture.waiter()?;
    for _ in 0..20 {
        let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
        let held = held.expect("it was free");
        let held = backend.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
        assert!(backend.release(&held).await?);
        assert!(!backend.release(&held).await?);
    }
    assert_eq!(recorder.payloads(&fixture).await?, [""; 0]);

    // Only the release of the key with a waiter is notified, and not with the raw key.
    let (holder, held) = fixture.holder().await?;
    let (_, other) = fixture.holder().await?;
    let notification = listening(&backend, held.key()).await;
    assert!(holder.release(&other).await? && holder.release(&held).await?);
    assert_notified(notification).await;
    let name = fixture.name(held.key()).await?;
    assert_eq!(recorder.payloads(&fixture).await?, [name]);
    Ok(())
}

async fn an_uncommitted_release_is_not_missed_by_a_new_waiter(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let (holder, held) = fixture.holder().await?;
    let mut transaction = holder.pool().begin().await?;
    assert!(holder.release_in(&mut transaction, &held).await?);

    let mut notification = Box::pin(waiter.notified(held.key()));
    let tries = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 \
        AND query LIKE '%pg_try_advisory_lock_shared%'";
    fixture.until(tries, 1).await?;
    assert!(
        timeout(Duration::from_millis(100), &mut notification).await.is_err(),
        "notified before the commit"
    );
    transaction.commit().await?;
    assert_notified(notification).await;
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

async fn a_reconnect_wakes_all_waiters(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let (holder, held) = fixture.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    for _ in 0..3 {
        assert_eq!((fixture.waiter_locks().await?, fixture.terminate().await?), (1, 1));
        // A release now may find no waiter lock. So the waiter is woken when the lock is back.
        assert_notified(&mut notification).await;
        fixture.until(WAITER_LOCKS, 1).await?;
        notification = Box::pin(waiter.notified(held.key()));
    }
    assert!(holder.release(&held).await?);
    assert_notified(notification).await;
    Ok(())
}

/// Simulates a firewall that cuts connections it takes for idle.
async fn connections_that_end_early_are_one_warning(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let warning = logging("syncguard_postgres", |log| async move {
        let (waiter, key) = (fixture.waiter()?, fixture.key().await?);
        let mut notification = listening(&waiter, &key).await;
        let warning = warning_of_early_ends(&log, async || {
            assert_eq!(fixture.terminate().await?, 1);
            assert_notified(&mut notification).await;
            notification = Box::pin(waiter.notified(&key));
            Outcome::Ok(())
        });
        warning.await
    });
    let warning = warning.await?;
    assert!(warning.contains("no notifications of releases"), "{warning}");
    Ok(())
}

async fn one_connection_listens_for_all_keys_and_clones(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let backend = fixture.waiter()?;
    let waiting: Vec<_> = (0..2_000)
        .map(|_| {
            let (clone, key) = (backend.clone(), fresh_key());
            let notification: Notification = Box::pin(clone.notified(&key));
            (notification, key)
        })
        .collect();
    let mut keys = Vec::new();
    let mut notifications = Vec::new();
    for (mut notification, key) in waiting {
        assert_notified(&mut notification).await;
        notifications.push(backend.notified(&key));
        keys.push(key);
    }
    let waiter_locks = fixture.waiter_locks().await?;
    assert!((200..=256).contains(&waiter_locks), "{waiter_locks} waiter locks");
    assert_eq!(fixture.connections().await?, 1);

    let (holder, last) = (fixture.named().build(fixture.pool.clone())?, keys.pop().expect("many"));
    let held = lease(holder.acquire(&last, &fresh_id(), minute()).await)?.expect("it was free");
    let notification = backend.clone().notified(&last);
    assert!(holder.release(&held).await?);
    assert_notified(notification).await;
    Ok(())
}

async fn no_waiter_lock_is_left_without_waiters(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let backend = fixture.waiter()?;
    let [one, two] = [fixture.key().await?, fixture.key().await?];
    let notification = listening(&backend, &one).await;
    drop(listening(&backend, &two).await);
    let recorder = fixture.record().await;
    fixture.until(WAITER_LOCKS, 1).await?;
    drop(notification);
    fixture.until(WAITER_LOCKS, 0).await?;

    let mut recorder = recorder?;
    for key in [&one, &two] {
        let held = lease(backend.acquire(key, &fresh_id(), minute()).await)?.expect("free");
        assert!(backend.release(&held).await?);
    }
    assert_eq!(recorder.payloads(&fixture).await?, [""; 0]);
    // A new waiter starts it again.
    assert_release_notifies(&fixture, &one, listening(&backend, &one).await).await
}

/// Checks that a release of the key by another backend notifies the waiter.
async fn assert_release_notifies(
    fixture: &Fixture,
    key: &Key,
    notification: impl Future<Output = ()>,
) -> Outcome {
    let holder = fixture.named().build(fixture.pool.clone())?;
    let held = lease(holder.acquire(key, &fresh_id(), minute()).await)?.expect("it was free");
    assert!(holder.release(&held).await?);
    assert_notified(notification).await;
    Ok(())
}

async fn the_connection_ends_after_a_minute_without_waiters(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let warnings = logging("syncguard_postgres", |log| async move {
        let (backend, key) = (fixture.waiter()?, fixture.key().await?);
        let start = Instant::now();
        drop(listening(&backend, &key).await);
        fixture.until(WAITER_LOCKS, 0).await?;
        let half = Duration::from_secs(30);
        let time_passes = async || {
            pause();
            advance(half).await;
            resume();
        };
        time_passes().await;
        // Time to end, if it would end too early.
        sleep(Duration::from_millis(100)).await;
        let connections = fixture.connections().await?;
        assert!(connections == 1 || start.elapsed() >= 2 * half, "the connection ended too early");
        time_passes().await;
        fixture.until(CONNECTIONS, 0).await?;
        // A new waiter starts it again.
        assert_release_notifies(&fixture, &key, listening(&backend, &key).await).await?;
        Outcome::Ok(log.warnings())
    });
    assert_eq!(warnings.await?, [""; 0]);
    Ok(())
}

async fn the_connection_ends_with_the_backend_or_its_pool(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let backend = fixture.waiter()?;
    let clone = backend.clone();
    let _notification = listening(&backend, &fixture.key().await?).await;
    drop(backend);
    let _next = listening(&clone, &fixture.key().await?).await;
    assert_eq!(fixture.connections().await?, 1);
    std::thread::spawn(move || drop(clone)).join().expect("it does not panic");
    fixture.until(CONNECTIONS, 0).await?;

    let own = pool_of(2).connect_lazy_with(fixture.options());
    let listen_on = fixture.options().application_name(&fixture.table);
    let backend = fixture.named().listen_on(listen_on).build(own.clone())?;
    let _notification = listening(&backend, &fixture.key().await?).await;
    own.close().await;
    fixture.until(CONNECTIONS, 0).await?;
    Ok(())
}

async fn another_runtime_takes_over_when_one_has_ended(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let backend = fixture.builder().build(pool_of(4).connect_lazy_with(fixture.options()))?;
    let key = fresh_key();
    for several_threads in [false, true] {
        let (backend, key) = (backend.clone(), key.clone());
        let ended = std::thread::spawn(move || {
            let mut runtime = match several_threads {
                true => tokio::runtime::Builder::new_multi_thread(),
                false => tokio::runtime::Builder::new_current_thread(),
            };
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async { drop(listening(&backend, &key).await) });
            drop(runtime);
        });
        ended.join().expect("it does not panic");
    }
    assert_release_notifies(&fixture, &key, listening(&backend, &key).await).await?;
    fixture.until(CONNECTIONS, 1).await?;
    Ok(())
}

async fn a_refused_connection_is_tried_again(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let user = format!("u{}", fresh_id().fingerprint());
    super::execute(&fixture.pool, format!("CREATE ROLE {user} NOLOGIN PASSWORD 'secret'")).await?;
    let listen_on = super::as_user(&fixture.options(), &user).application_name(&fixture.table);
    let backend = fixture.named().listen_on(listen_on).build(fixture.pool.clone())?;
    let key = fresh_key();
    let mut notification = Box::pin(backend.notified(&key));
    assert!(timeout(Duration::from_millis(300), &mut notification).await.is_err());
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");
    assert!(backend.release(&held).await?);
    assert!(backend.capabilities().receives_notifications());

    super::execute(&fixture.pool, format!("ALTER ROLE {user} LOGIN")).await?;
    assert_notified(notification).await;
    assert_release_notifies(&fixture, &key, backend.notified(&key)).await
}

async fn without_notifications_no_connection_listens(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let silent = fixture.builder().notifications(false).build(fixture.pool.clone())?;
    let as_text = pool_of(1).connect_lazy_with(fixture.options().statement_cache_capacity(0));
    let as_text = fixture.named().build(as_text)?;
    let (holder, held) = fixture.holder().await?;
    for backend in [silent, as_text] {
        assert!(!backend.capabilities().receives_notifications());
        let notification = backend.notified(held.key());
        assert!(timeout(Duration::from_millis(100), notification).await.is_err());
    }
    assert_eq!((fixture.connections().await?, fixture.waiter_locks().await?), (0, 0));
    assert!(holder.release(&held).await?);
    Ok(())
}

async fn the_trigger_notifies_of_a_plain_delete(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.builder().delete_trigger(true).build(fixture.pool.clone())?;
    let (holder, held) = fixture.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    fixture.delete(held.key()).await?;
    assert!(
        timeout(Duration::from_millis(200), &mut notification).await.is_err(),
        "there is no trigger"
    );

    // The set-up adds the trigger to existing tables, and only once.
    waiter.setup_schema().await?;
    waiter.setup_schema().await?;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname = $1 || '_freed'";
    assert_eq!(fixture.number(triggers).await?, 1);
    super::execute(&fixture.pool, waiter.schema_sql()).await?;
    let mut recorder = fixture.record().await?;

    let id = fresh_id();
    lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    fixture.delete(held.key()).await?;
    assert_notified(notification).await;
    assert_eq!(recorder.payloads(&fixture).await?.len(), 1);

    // The release statement and the trigger send one notification together. A purge sends none,
    // because a dead row was free before.
    let notification = waiter.notified(held.key());
    let again = lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    assert!(holder.release(&again).await?);
    assert_notified(notification).await;
    assert_eq!(recorder.payloads(&fixture).await?.len(), 1);
    let _notification = waiter.notified(held.key());
    lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    let sql = format!("UPDATE {} SET expires_at_ms = 0", fixture.table);
    super::execute(&fixture.pool, sql).await?;
    assert!(waiter.purge_expired(Duration::from_secs(60)).await? >= 1);
    assert_eq!(recorder.payloads(&fixture).await?, [""; 0]);
    Ok(())
}

//! Releases that are told to those who wait, and to nobody else.

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
    a_waiter_is_told_of_each_kind_of_release,
    a_waiter_in_another_process_gets_the_lock_without_its_timer,
    nobody_is_told_where_nobody_waits,
    a_release_that_is_under_way_when_the_wait_begins_is_not_missed,
    what_was_waited_for_while_the_connection_was_lost_is_tried_again,
    connections_that_end_early_are_an_outage,
    one_connection_hears_for_all_keys_and_clones,
    no_sign_is_left_when_nobody_waits,
    the_connection_ends_when_nobody_has_waited_for_a_minute,
    the_connection_ends_with_the_backend_or_its_pool,
    another_runtime_goes_on_where_one_has_ended,
    a_connection_that_is_refused_is_tried_again,
    without_notifications_nobody_listens,
    a_trigger_tells_of_a_plain_delete,
];

/// A lock table of its own, and with it a channel of its own.
pub(super) struct Place {
    pub(super) table: String,
    pub(super) pool: PgPool,
    buckets: Mutex<HashSet<String>>,
}

impl Place {
    pub(super) async fn new(server: &Server) -> Outcome<Self> {
        let pool = super::backend(server, 8, |options| options).await?.pool().clone();
        let place = Self {
            table: format!("t_{}", fresh_id().fingerprint()),
            pool,
            buckets: Mutex::default(),
        };
        place.builder().build()?.setup_schema().await?;
        Ok(place)
    }

    /// With a listening connection that can be told from others by its name.
    pub(super) fn builder(&self) -> PostgresBackendBuilder {
        self.on(self.pool.clone()).listen_on(self.options().application_name(&self.table))
    }

    pub(super) fn on(&self, pool: PgPool) -> PostgresBackendBuilder {
        PostgresBackend::builder(pool).lock_table(&self.table).command_timeout(PATIENCE)
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::clone(&self.pool.connect_options())
    }

    /// A key that shares its sign with no other key from here.
    pub(super) async fn key(&self) -> sqlx::Result<Key> {
        loop {
            let key = fresh_key();
            let bucket = self.name(&key).await?.chars().take(2).collect();
            if self.buckets.lock().expect("nobody panics").insert(bucket) {
                return Ok(key);
            }
        }
    }

    /// A process of its own, and a key that it has taken.
    pub(super) async fn holder(&self) -> Outcome<(PostgresBackend, Lease)> {
        let backend = self.on(pool_of(2).connect_lazy_with(self.options())).build()?;
        let held = lease(backend.acquire(&self.key().await?, &fresh_id(), minute()).await)?;
        Ok((backend, held.expect("it was free")))
    }

    pub(super) async fn number(&self, sql: &str) -> sqlx::Result<i64> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(&self.table);
        query.fetch_one(&self.pool).await
    }

    pub(super) async fn signs(&self) -> sqlx::Result<i64> {
        self.number(SIGNS).await
    }

    pub(super) async fn connections(&self) -> sqlx::Result<i64> {
        self.number(CONNECTIONS).await
    }

    pub(super) async fn until(&self, sql: &str, expected: i64) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.number(sql).await? {
                found if found == expected => return Ok(()),
                found if Instant::now() > deadline => panic!("{found} instead of {expected}"),
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

    /// What a key is called in a notification.
    async fn name(&self, key: &Key) -> sqlx::Result<String> {
        let sql = "SELECT left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 16)";
        sqlx::query_scalar(sql).bind(key.as_str()).fetch_one(&self.pool).await
    }

    async fn delete(&self, key: &Key) -> sqlx::Result<()> {
        let sql = format!("DELETE FROM {} WHERE key = $1", self.table);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(key.as_str());
        query.execute(&self.pool).await.map(drop)
    }

    /// A session that hears all that is told.
    async fn overhear(&self) -> sqlx::Result<Overheard> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(&format!("{}_freed", self.table)).await?;
        Ok(Overheard { listener, pool: self.pool.clone() })
    }
}

/// Of all sessions that wait at this place.
pub(super) const SIGNS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
    AND mode = 'ShareLock' AND granted \
    AND classid = (hashtext($1 || '_freed')::bigint & 4294967295)::oid";

/// That listen for a backend of this place.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";

struct Overheard {
    listener: PgListener,
    pool: PgPool,
}

impl Overheard {
    /// What was told up to now on the channel of this place.
    async fn so_far(&mut self, place: &Place) -> sqlx::Result<Vec<String>> {
        let end = "SELECT pg_notify($1 || '_freed', 'end')";
        sqlx::query(end).bind(&place.table).execute(&self.pool).await?;
        let mut all = Vec::new();
        loop {
            match self.listener.recv().await?.payload() {
                "end" => return Ok(all),
                name => all.push(name.to_owned()),
            }
        }
    }
}

/// Waits until a sign is up for a key, where there was none, and gives the next notification.
pub(super) async fn listening(backend: &PostgresBackend, key: &Key) -> Notification {
    let mut in_place = Box::pin(backend.notified(key));
    told(&mut in_place).await;
    // The interest goes on from one to the other, and so the sign stays.
    Box::pin(backend.notified(key))
}

pub(super) type Notification = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) async fn told(notification: impl Future<Output = ()>) {
    timeout(PATIENCE, notification).await.expect("nobody told");
}

async fn a_waiter_is_told_of_each_kind_of_release(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    assert!(waiter.capabilities().receives_notifications());

    let (holder, held) = place.holder().await?;
    let notification = listening(&waiter, held.key()).await;
    assert!(holder.release(&held).await?);
    told(notification).await;

    let (holder, held) = place.holder().await?;
    let notification = listening(&waiter, held.key()).await;
    assert!(holder.release_by_id(held.id()).await?);
    told(notification).await;

    let (holder, held) = place.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    let mut transaction = holder.pool().begin().await?;
    assert!(holder.release_in(&mut transaction, &held).await?);
    assert!(
        timeout(Duration::from_millis(50), &mut notification).await.is_err(),
        "before the commit"
    );
    transaction.commit().await?;
    told(notification).await;

    // As text, and its own.
    let own =
        lease(waiter.acquire(&place.key().await?, &fresh_id(), minute()).await)?.expect("free");
    let notification = listening(&waiter, own.key()).await;
    let as_text = pool_of(1).connect_lazy_with(place.options().statement_cache_capacity(0));
    assert!(place.on(as_text).build()?.release(&own).await?);
    told(notification).await;
    Ok(())
}

/// Its timer would let it try again after an hour.
async fn a_waiter_in_another_process_gets_the_lock_without_its_timer(
    server: Arc<Server>,
) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    let (holder, held) = place.holder().await?;
    let locks = LockManager::new(waiter.clone());
    let request = locks.lock(held.key()).wait(PATIENCE);
    let request = request.backoff(Backoff::fixed(Duration::from_secs(3600)));
    let (guard, released) = tokio::join!(request.acquire(), async {
        place.until(SIGNS, 1).await?;
        Outcome::Ok(holder.release(&held).await?)
    });
    assert!(released?);
    assert!(guard?.fence() > held.fence());
    Ok(())
}

async fn nobody_is_told_where_nobody_waits(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let mut overheard = place.overhear().await?;
    let backend = place.builder().build()?;
    for _ in 0..20 {
        let held = lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?;
        let held = held.expect("it was free");
        let held = backend.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
        assert!(backend.release(&held).await?);
        assert!(!backend.release(&held).await?);
    }
    assert_eq!(overheard.so_far(&place).await?, [""; 0]);

    // Only for the key that is waited for, and with no word of it.
    let (holder, held) = place.holder().await?;
    let (_, other) = place.holder().await?;
    let notification = listening(&backend, held.key()).await;
    assert!(holder.release(&other).await? && holder.release(&held).await?);
    told(notification).await;
    let name = place.name(held.key()).await?;
    assert_eq!(overheard.so_far(&place).await?, [name]);
    Ok(())
}

async fn a_release_that_is_under_way_when_the_wait_begins_is_not_missed(
    server: Arc<Server>,
) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    let (holder, held) = place.holder().await?;
    let mut transaction = holder.pool().begin().await?;
    assert!(holder.release_in(&mut transaction, &held).await?);

    let mut notification = Box::pin(waiter.notified(held.key()));
    let tries = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 \
        AND query LIKE '%pg_try_advisory_lock_shared%'";
    place.until(tries, 1).await?;
    assert!(
        timeout(Duration::from_millis(100), &mut notification).await.is_err(),
        "before the commit"
    );
    transaction.commit().await?;
    told(notification).await;
    assert_eq!(waiter.get(held.key()).await?, None);
    Ok(())
}

async fn what_was_waited_for_while_the_connection_was_lost_is_tried_again(
    server: Arc<Server>,
) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().build()?;
    let (holder, held) = place.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    for _ in 0..3 {
        assert_eq!((place.signs().await?, place.terminate().await?), (1, 1));
        // A release now may find no sign. So the waiter is woken as soon as there is one again.
        told(&mut notification).await;
        place.until(SIGNS, 1).await?;
        notification = Box::pin(waiter.notified(held.key()));
    }
    assert!(holder.release(&held).await?);
    told(notification).await;
    Ok(())
}

/// As behind something that cuts what it takes for an idle connection.
async fn connections_that_end_early_are_an_outage(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let warning = logging("syncguard_postgres", |log| async move {
        let (waiter, key) = (place.builder().build()?, place.key().await?);
        let mut notification = listening(&waiter, &key).await;
        let warning = warning_of_early_ends(&log, async || {
            assert_eq!(place.terminate().await?, 1);
            told(&mut notification).await;
            notification = Box::pin(waiter.notified(&key));
            Outcome::Ok(())
        });
        warning.await
    });
    let warning = warning.await?;
    assert!(warning.contains("releases are not heard"), "{warning}");
    Ok(())
}

async fn one_connection_hears_for_all_keys_and_clones(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let backend = place.builder().build()?;
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
        told(&mut notification).await;
        notifications.push(backend.notified(&key));
        keys.push(key);
    }
    let signs = place.signs().await?;
    assert!((200..=256).contains(&signs), "{signs} signs");
    assert_eq!(place.connections().await?, 1);

    let (holder, last) = (place.on(place.pool.clone()).build()?, keys.pop().expect("many"));
    let held = lease(holder.acquire(&last, &fresh_id(), minute()).await)?.expect("it was free");
    let notification = backend.clone().notified(&last);
    assert!(holder.release(&held).await?);
    told(notification).await;
    Ok(())
}

async fn no_sign_is_left_when_nobody_waits(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let backend = place.builder().build()?;
    let [one, two] = [place.key().await?, place.key().await?];
    let notification = listening(&backend, &one).await;
    drop(listening(&backend, &two).await);
    let overheard = place.overhear().await;
    place.until(SIGNS, 1).await?;
    drop(notification);
    place.until(SIGNS, 0).await?;

    let mut overheard = overheard?;
    for key in [&one, &two] {
        let held = lease(backend.acquire(key, &fresh_id(), minute()).await)?.expect("free");
        assert!(backend.release(&held).await?);
    }
    assert_eq!(overheard.so_far(&place).await?, [""; 0]);
    // And it begins anew.
    told_of_a_release(&place, &one, listening(&backend, &one).await).await
}

/// Resolves with the notification, after a release of the key by somebody else.
async fn told_of_a_release(
    place: &Place,
    key: &Key,
    notification: impl Future<Output = ()>,
) -> Outcome {
    let holder = place.on(place.pool.clone()).build()?;
    let held = lease(holder.acquire(key, &fresh_id(), minute()).await)?.expect("it was free");
    assert!(holder.release(&held).await?);
    told(notification).await;
    Ok(())
}

async fn the_connection_ends_when_nobody_has_waited_for_a_minute(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let warnings = logging("syncguard_postgres", |log| async move {
        let (backend, key) = (place.builder().build()?, place.key().await?);
        let begun = Instant::now();
        drop(listening(&backend, &key).await);
        place.until(SIGNS, 0).await?;
        let half = Duration::from_secs(30);
        let time_passes = async || {
            pause();
            advance(half).await;
            resume();
        };
        time_passes().await;
        // So that it can end, if it is to.
        sleep(Duration::from_millis(100)).await;
        let connections = place.connections().await?;
        assert!(connections == 1 || begun.elapsed() >= 2 * half, "it has ended too early");
        time_passes().await;
        place.until(CONNECTIONS, 0).await?;
        // And it begins anew.
        told_of_a_release(&place, &key, listening(&backend, &key).await).await?;
        Outcome::Ok(log.warnings())
    });
    assert_eq!(warnings.await?, [""; 0]);
    Ok(())
}

async fn the_connection_ends_with_the_backend_or_its_pool(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let backend = place.builder().build()?;
    let clone = backend.clone();
    let _notification = listening(&backend, &place.key().await?).await;
    drop(backend);
    let _next = listening(&clone, &place.key().await?).await;
    assert_eq!(place.connections().await?, 1);
    std::thread::spawn(move || drop(clone)).join().expect("it does not panic");
    place.until(CONNECTIONS, 0).await?;

    let own = pool_of(2).connect_lazy_with(place.options());
    let listen_on = place.options().application_name(&place.table);
    let backend = place.on(own.clone()).listen_on(listen_on).build()?;
    let _notification = listening(&backend, &place.key().await?).await;
    own.close().await;
    place.until(CONNECTIONS, 0).await?;
    Ok(())
}

async fn another_runtime_goes_on_where_one_has_ended(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let backend = place.on(pool_of(4).connect_lazy_with(place.options()));
    let backend = backend.listen_on(place.options().application_name(&place.table)).build()?;
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
    told_of_a_release(&place, &key, listening(&backend, &key).await).await?;
    place.until(CONNECTIONS, 1).await?;
    Ok(())
}

async fn a_connection_that_is_refused_is_tried_again(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let user = format!("u{}", fresh_id().fingerprint());
    super::execute(&place.pool, format!("CREATE ROLE {user} NOLOGIN PASSWORD 'secret'")).await?;
    let listen_on = super::as_user(&place.options(), &user).application_name(&place.table);
    let backend = place.on(place.pool.clone()).listen_on(listen_on).build()?;
    let key = fresh_key();
    let mut notification = Box::pin(backend.notified(&key));
    assert!(timeout(Duration::from_millis(300), &mut notification).await.is_err());
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");
    assert!(backend.release(&held).await?);
    assert!(backend.capabilities().receives_notifications());

    super::execute(&place.pool, format!("ALTER ROLE {user} LOGIN")).await?;
    told(notification).await;
    told_of_a_release(&place, &key, backend.notified(&key)).await
}

async fn without_notifications_nobody_listens(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let silent = place.builder().notifications(false).build()?;
    let as_text = pool_of(1).connect_lazy_with(place.options().statement_cache_capacity(0));
    let as_text = place.on(as_text).build()?;
    let (holder, held) = place.holder().await?;
    for backend in [silent, as_text] {
        assert!(!backend.capabilities().receives_notifications());
        let notification = backend.notified(held.key());
        assert!(timeout(Duration::from_millis(100), notification).await.is_err());
    }
    assert_eq!((place.connections().await?, place.signs().await?), (0, 0));
    assert!(holder.release(&held).await?);
    Ok(())
}

async fn a_trigger_tells_of_a_plain_delete(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    let waiter = place.builder().delete_trigger(true).build()?;
    let (holder, held) = place.holder().await?;
    let mut notification = listening(&waiter, held.key()).await;
    place.delete(held.key()).await?;
    assert!(
        timeout(Duration::from_millis(200), &mut notification).await.is_err(),
        "there is no trigger"
    );

    // Added to tables that are there, and twice.
    waiter.setup_schema().await?;
    waiter.setup_schema().await?;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname = $1 || '_freed'";
    assert_eq!(place.number(triggers).await?, 1);
    super::execute(&place.pool, waiter.schema_sql()).await?;
    let mut overheard = place.overhear().await?;

    let id = fresh_id();
    lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    place.delete(held.key()).await?;
    told(notification).await;
    assert_eq!(overheard.so_far(&place).await?.len(), 1);

    // What both tell arrives once, and nobody is told of what was free already.
    let notification = waiter.notified(held.key());
    let again = lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    assert!(holder.release(&again).await?);
    told(notification).await;
    assert_eq!(overheard.so_far(&place).await?.len(), 1);
    let _notification = waiter.notified(held.key());
    lease(holder.acquire(held.key(), &id, minute()).await)?.expect("it was free");
    let sql = format!("UPDATE {} SET expires_at_ms = 0", place.table);
    super::execute(&place.pool, sql).await?;
    assert!(waiter.purge_expired(Duration::from_secs(60)).await? >= 1);
    assert_eq!(overheard.so_far(&place).await?, [""; 0]);
    Ok(())
}

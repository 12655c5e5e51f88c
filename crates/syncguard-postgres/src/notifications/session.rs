//! One connection that listens, and was seen to hear.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row};
use syncguard_core::LockId;
use tokio::time::{Instant, timeout};

use super::channel::Bucket;
use super::route::Route;
use crate::connections::Purpose;
use crate::tls;

/// A session of the server that listens to the channel, with the signs it has put up.
pub(super) struct Session {
    listener: PgListener,
    /// Of this connection only: the driver's listener asks for one.
    pool: PgPool,
    channel: String,
    limit: Duration,
    signs: BTreeSet<Bucket>,
    opened: Instant,
    /// When the server last gave a sign of life.
    alive: Instant,
}

/// Why there is no session.
pub(super) enum Failure {
    /// What others notify does not arrive: a pooler gives each transaction another session.
    Deaf,
    /// Anything that may be better the next time.
    Error(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Error(error)
    }
}

impl Session {
    /// Connects, proves that a notification sent the way of the statements arrives, and listens.
    pub(super) async fn open(route: &Route) -> Result<Self, Failure> {
        let options = route.options();
        tls::choose_provider(&options);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(route.limit)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // When the listener gives it back, it is to be closed.
            .after_release(|_, _| Box::pin(async { Ok(false) }))
            .connect_lazy_with(options);
        let connect = PgListener::connect_with(&pool);
        let mut listener = within(route.limit, connect).await?;
        // The signs end with the connection, so a lost connection means a new session.
        listener.eager_reconnect(false);
        let mut session = Self {
            listener,
            pool,
            channel: route.channel.clone(),
            limit: route.limit,
            signs: BTreeSet::new(),
            opened: Instant::now(),
            alive: Instant::now(),
        };
        session.prove(route).await?;
        let listen = session.listener.listen(&session.channel);
        within(route.limit, listen).await?;
        Ok(session)
    }

    /// Nothing may be left on a session that belongs to somebody else the next moment: a LISTEN
    /// would send notifications to clients that expect none, and a sign would stand for ever. So it
    /// is first tested without leaving anything, and then with a channel that is never used again.
    async fn prove(&mut self, route: &Route) -> Result<(), Failure> {
        let probe = format!("syncguard_{}", random()?.as_str());
        let send = async {
            let Ok(mut borrowed) = route.connections.take(Purpose::Attempt).await else {
                // The attempts of the waiters fail as well, and say why.
                return Err(sqlx::Error::PoolTimedOut);
            };
            let other = borrowed.connection();
            let here = pid(&mut self.listener).await?;
            let there = pid(&mut *other).await?;
            let heard = here != there && here == pid(&mut self.listener).await?;
            if heard {
                self.listener.listen(&probe).await?;
                let notify = format!("SELECT pg_notify('{probe}', '')");
                sqlx::raw_sql(AssertSqlSafe(notify)).execute(other).await?;
            }
            borrowed.give_back();
            Ok(heard)
        };
        if !within(route.limit, send).await? {
            return Err(Failure::Deaf);
        }
        match timeout(PROOF_LIMIT, self.hear(&probe)).await {
            Ok(heard) => heard?,
            Err(_) => return Err(Failure::Deaf),
        };
        within(self.limit, self.listener.unlisten(&probe)).await?;
        Ok(())
    }

    /// The name in the next notification.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost.
    pub(super) async fn next(&mut self) -> sqlx::Result<String> {
        let channel = self.channel.clone();
        self.hear(&channel).await
    }

    async fn hear(&mut self, channel: &str) -> sqlx::Result<String> {
        loop {
            let Some(heard) = self.listener.try_recv().await? else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            self.alive = Instant::now();
            if heard.channel() == channel {
                return Ok(heard.payload().to_owned());
            }
        }
    }

    pub(super) fn signs(&self) -> &BTreeSet<Bucket> {
        &self.signs
    }

    /// Puts up signs, and says which. One that somebody's release keeps out is to be tried again
    /// soon. It is not waited for: that release may be part of a long transaction.
    pub(super) async fn put_up(
        &mut self,
        wanted: &BTreeSet<Bucket>,
    ) -> sqlx::Result<BTreeSet<Bucket>> {
        let sql = format!(
            "SELECT bucket FROM unnest('{{{}}}'::int[]) AS bucket \
             WHERE pg_try_advisory_lock_shared(hashtext('{}'), bucket)",
            list(wanted),
            self.channel
        );
        let mut put_up = BTreeSet::new();
        for row in self.fetch(sql).await? {
            put_up.extend(Bucket::try_from(row.try_get::<i32, _>(0)?));
        }
        self.signs.extend(&put_up);
        Ok(put_up)
    }

    pub(super) async fn take_down(&mut self, unwanted: &BTreeSet<Bucket>) -> sqlx::Result<()> {
        let sql = format!(
            "SELECT pg_advisory_unlock_shared(hashtext('{}'), bucket) \
             FROM unnest('{{{}}}'::int[]) AS bucket",
            self.channel,
            list(unwanted)
        );
        self.fetch(sql).await?;
        self.signs.retain(|sign| !unwanted.contains(sign));
        Ok(())
    }

    /// Asks the server for a sign of life, if there was none for this long.
    pub(super) async fn check(&mut self, silence: Duration) -> sqlx::Result<()> {
        if self.alive.elapsed() >= silence {
            self.fetch("SELECT 1".to_owned()).await?;
        }
        Ok(())
    }

    /// From its beginning to the server's last sign of life: what came after that is not known.
    pub(super) fn worked_for(&self) -> Duration {
        self.alive.saturating_duration_since(self.opened)
    }

    async fn fetch(&mut self, sql: String) -> sqlx::Result<Vec<PgRow>> {
        // What is heard meanwhile is kept by the listener.
        let rows = self.listener.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql)));
        let rows = within(self.limit, rows).await?;
        self.alive = Instant::now();
        Ok(rows)
    }

    /// Ends the session, and its signs with it.
    pub(super) async fn close(self) {
        let Self { listener, pool, limit, .. } = self;
        drop(listener);
        // The pool closes anyway, but later if the server does not answer.
        let _ = timeout(limit, pool.close()).await;
    }
}

/// How long a notification may take that is sent to prove that it arrives.
const PROOF_LIMIT: Duration = Duration::from_secs(3);

/// The session that a statement runs in.
async fn pid<'c>(executor: impl Executor<'c, Database = sqlx::Postgres>) -> sqlx::Result<i32> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(executor).await?.try_get(0)
}

fn random() -> sqlx::Result<LockId> {
    LockId::random().map_err(|error| sqlx::Error::Configuration(Box::new(error)))
}

fn list(buckets: &BTreeSet<Bucket>) -> String {
    let buckets: Vec<_> = buckets.iter().map(Bucket::to_string).collect();
    buckets.join(",")
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    match timeout(limit, step).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

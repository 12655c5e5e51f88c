//! One session that listens, after a test that notifications reach it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor, Row};
use syncguard_core::LockId;
use tokio::time::{Instant, timeout};

use super::channel::Bucket;
use super::connection::ListeningConnection;
use super::route::Route;
use crate::connections::Purpose;

/// A session of the server that listens to the channel, with the waiter locks that it holds.
pub(super) struct Session {
    connection: ListeningConnection,
    channel: String,
    limit: Duration,
    waiter_locks: BTreeSet<Bucket>,
    opened: Instant,
    /// When the server last answered.
    answered: Instant,
}

/// Why there is no session.
pub(super) enum Failure {
    /// Notifications do not arrive, because a pooler gives each transaction another session.
    NoneArrive,
    /// Anything else, which may work the next time.
    Error(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Error(error)
    }
}

impl Session {
    /// Connects, tests that a notification arrives which was sent as the statements are, and listens.
    pub(super) async fn open(route: &Route) -> Result<Self, Failure> {
        let connect = ListeningConnection::open(route.options(), route.limit);
        let connection = within(route.limit, connect).await?;
        let mut session = Self {
            connection,
            channel: route.channel.clone(),
            limit: route.limit,
            waiter_locks: BTreeSet::new(),
            opened: Instant::now(),
            answered: Instant::now(),
        };
        session.test(route).await?;
        let listen = session.connection.listener().listen(&session.channel);
        within(route.limit, listen).await?;
        Ok(session)
    }

    /// Tests that notifications arrive.
    ///
    /// A pooler may give the session to another client at any time. A LISTEN would then send
    /// notifications to a client that expects none, and a waiter lock would never end. So the first test
    /// leaves nothing behind, and the second one uses a channel that is never used again.
    async fn test(&mut self, route: &Route) -> Result<(), Failure> {
        let probe = format!("syncguard_{}", random()?.as_str());
        let send = async {
            let Ok(mut borrowed) = route.connections.take(Purpose::Attempt).await else {
                // The attempts of the waiters fail as well, and say why.
                return Err(sqlx::Error::PoolTimedOut);
            };
            let other = borrowed.connection();
            let here = pid(self.connection.listener()).await?;
            let there = pid(&mut *other).await?;
            let is_own = here != there && here == pid(self.connection.listener()).await?;
            if is_own {
                self.connection.listener().listen(&probe).await?;
                let notify = format!("SELECT pg_notify('{probe}', '')");
                sqlx::raw_sql(AssertSqlSafe(notify)).execute(other).await?;
            }
            borrowed.give_back();
            Ok(is_own)
        };
        if !within(route.limit, send).await? {
            return Err(Failure::NoneArrive);
        }
        match timeout(TEST_LIMIT, self.receive(&probe)).await {
            Ok(received) => received?,
            Err(_) => return Err(Failure::NoneArrive),
        };
        within(self.limit, self.connection.listener().unlisten(&probe)).await?;
        Ok(())
    }

    /// The name in the next notification.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost.
    pub(super) async fn next(&mut self) -> sqlx::Result<String> {
        let channel = self.channel.clone();
        self.receive(&channel).await
    }

    async fn receive(&mut self, channel: &str) -> sqlx::Result<String> {
        loop {
            let Some(notification) = self.connection.listener().try_recv().await? else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            };
            self.answered = Instant::now();
            if notification.channel() == channel {
                return Ok(notification.payload().to_owned());
            }
        }
    }

    pub(super) fn waiter_locks(&self) -> &BTreeSet<Bucket> {
        &self.waiter_locks
    }

    /// Takes waiter locks, and returns those that it got. A release holds the others, and may be part of
    /// a long transaction. So this does not wait for them: the caller tries again.
    pub(super) async fn take(
        &mut self,
        wanted: &BTreeSet<Bucket>,
    ) -> sqlx::Result<BTreeSet<Bucket>> {
        let sql = format!(
            "SELECT bucket FROM unnest('{{{}}}'::int[]) AS bucket \
             WHERE pg_try_advisory_lock_shared(hashtext('{}'), bucket)",
            list(wanted),
            self.channel
        );
        let mut taken = BTreeSet::new();
        for row in self.fetch(sql).await? {
            taken.extend(Bucket::try_from(row.try_get::<i32, _>(0)?));
        }
        self.waiter_locks.extend(&taken);
        Ok(taken)
    }

    pub(super) async fn give_back(&mut self, unwanted: &BTreeSet<Bucket>) -> sqlx::Result<()> {
        let sql = format!(
            "SELECT pg_advisory_unlock_shared(hashtext('{}'), bucket) \
             FROM unnest('{{{}}}'::int[]) AS bucket",
            self.channel,
            list(unwanted)
        );
        self.fetch(sql).await?;
        self.waiter_locks.retain(|bucket| !unwanted.contains(bucket));
        Ok(())
    }

    /// Asks the server for an answer, if there was none for this long.
    pub(super) async fn check(&mut self, silence: Duration) -> sqlx::Result<()> {
        if self.answered.elapsed() >= silence {
            self.fetch("SELECT 1".to_owned()).await?;
        }
        Ok(())
    }

    /// How long the session worked, as far as is known: until the server's last answer.
    pub(super) fn worked_for(&self) -> Duration {
        self.answered.saturating_duration_since(self.opened)
    }

    async fn fetch(&mut self, sql: String) -> sqlx::Result<Vec<PgRow>> {
        // The listener keeps notifications that arrive meanwhile.
        let rows = self.connection.listener().fetch_all(sqlx::raw_sql(AssertSqlSafe(sql)));
        let rows = within(self.limit, rows).await?;
        self.answered = Instant::now();
        Ok(rows)
    }

    /// Ends the session, and its waiter locks with it.
    pub(super) async fn close(self) {
        self.connection.close(self.limit).await;
    }
}

/// How long the notification of a test may take.
const TEST_LIMIT: Duration = Duration::from_secs(3);

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

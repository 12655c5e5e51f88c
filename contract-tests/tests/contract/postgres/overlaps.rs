//! Operations on a lease whose row another transaction locks until after the lease has expired.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::sqlx::{self, Postgres, Transaction};
use syncguard_postgres::{Backend, Error, Key, Lease, PostgresBackend};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::{pid, until_one_waits};
use super::{Outcome, cases, end_in, fresh_id, fresh_key, lease, minute, service};
use contract_tests::servers::Server;

cases![
    e1_an_extend_behind_our_own_extend_renews_the_lease_again,
    e1_an_extend_behind_an_extend_of_the_other_client_renews_the_lease_again,
    e1_an_extend_behind_a_rolled_back_release_revives_nothing,
    e1_an_extend_behind_a_takeover_renews_nothing,
    r2_a_release_behind_an_extend_ends_the_renewed_lease,
    r2_a_release_behind_a_rolled_back_release_is_too_late,
];

/// A lease that is about to expire, and a transaction that locks its row.
pub(super) struct Dying {
    pub(super) backend: PostgresBackend,
    pub(super) key: Key,
    pub(super) lease: Lease,
    pub(super) transaction: Transaction<'static, Postgres>,
    pid: i32,
}

impl Dying {
    pub(super) async fn new(
        server: &Server,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let backend = service(server).await?;
        let key = fresh_key();
        let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
        end_in(backend.pool(), &key, 400).await?;
        let mut transaction = backend.pool().begin().await?;
        let pid = pid(&mut transaction).await?;
        Ok(Self { backend, key, lease: held, transaction, pid })
    }

    /// Takes the advisory lock of the key. Our statements begin with it, but extend and release of
    /// the TypeScript client do not.
    pub(super) async fn lock_key(&mut self) -> sqlx::Result<()> {
        let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))");
        lock.bind(self.key.as_str()).execute(&mut *self.transaction).await.map(drop)
    }

    pub(super) async fn renew(&mut self) -> sqlx::Result<()> {
        let renew = sqlx::query(
            "UPDATE syncguard_locks SET expires_at_ms = expires_at_ms + 60000 WHERE lock_id = $1",
        );
        renew.bind(self.lease.id().as_str()).execute(&mut *self.transaction).await.map(drop)
    }

    /// Releases the lease inside the transaction. On a very busy machine it may have expired, which
    /// changes nothing: the transaction locks the row in either case.
    pub(super) async fn end(&mut self) -> Result<bool, Error> {
        self.backend.release_in(&mut self.transaction, &self.lease).await
    }

    /// Starts an operation and waits until it is blocked by the transaction.
    pub(super) async fn behind<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> sqlx::Result<JoinSet<Result<T, Error>>> {
        let mut running = JoinSet::new();
        running.spawn(operation);
        tokio::select! {
            waits = until_one_waits(self.backend.pool(), self.pid) => waits?,
            _ = running.join_next() => panic!("the operation did not wait for the transaction"),
        };
        Ok(running)
    }

    fn extend(&self) -> impl Future<Output = Result<bool, Error>> + Send + 'static {
        let (backend, lease) = (self.backend.clone(), self.lease.clone());
        async move { Ok(backend.extend(&lease, minute()).await?.is_some()) }
    }

    fn release(&self) -> impl Future<Output = Result<bool, Error>> + Send + 'static {
        let (backend, lease) = (self.backend.clone(), self.lease.clone());
        async move { backend.release(&lease).await }
    }

    /// Waits until the lease has expired for every client outside the transaction.
    pub(super) async fn until_dead(&self) -> Result<(), Error> {
        while self.backend.get(&self.key).await?.is_some() {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

pub(super) async fn answer(mut running: JoinSet<Result<bool, Error>>) -> Result<bool, Error> {
    running.join_next().await.expect("one task").expect("no panic")
}

async fn e1_an_extend_behind_our_own_extend_renews_the_lease_again(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.lock_key().await?;
    dying.renew().await?;
    let second = dying.behind(dying.extend()).await?;
    dying.until_dead().await?;
    dying.transaction.commit().await?;
    assert!(answer(second).await?);
    assert!(dying.backend.release(&dying.lease).await?);
    Ok(())
}

/// The second extend starts before the lease expires, and then after it. The first renewal was in
/// time in both cases.
async fn e1_an_extend_behind_an_extend_of_the_other_client_renews_the_lease_again(
    server: Arc<Server>,
) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.renew().await?;
    let second = dying.behind(dying.extend()).await?;
    dying.until_dead().await?;
    dying.transaction.commit().await?;
    assert!(answer(second).await?);

    let mut dying = Dying::new(&server).await?;
    dying.renew().await?;
    dying.until_dead().await?;
    let second = dying.behind(dying.extend()).await?;
    dying.transaction.commit().await?;
    assert!(answer(second).await?);
    Ok(())
}

async fn e1_an_extend_behind_a_rolled_back_release_revives_nothing(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.end().await?;
    let extend = dying.behind(dying.extend()).await?;
    dying.until_dead().await?;
    dying.transaction.rollback().await?;
    assert!(!answer(extend).await?);
    assert_eq!(dying.backend.get(&dying.key).await?, None);
    Ok(())
}

async fn e1_an_extend_behind_a_takeover_renews_nothing(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.lock_key().await?;
    let extend = dying.behind(dying.extend()).await?;
    dying.until_dead().await?;
    let Dying { backend, key, mut transaction, .. } = dying;
    let new = lease(backend.acquire_in(&mut transaction, &key, minute()).await)?.expect("dead");
    transaction.commit().await?;
    assert!(!answer(extend).await?);
    let record = backend.get(&key).await?.expect("it is held");
    assert_eq!((record.id(), record.expires_at()), (new.id(), new.expires_at()));
    Ok(())
}

/// The release starts when the row is already dead for every client outside the transaction.
async fn r2_a_release_behind_an_extend_ends_the_renewed_lease(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.renew().await?;
    dying.until_dead().await?;
    let release = dying.behind(dying.release()).await?;
    dying.transaction.commit().await?;
    assert!(answer(release).await?);
    assert_eq!(dying.backend.get(&dying.key).await?, None);
    Ok(())
}

async fn r2_a_release_behind_a_rolled_back_release_is_too_late(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.end().await?;
    let release = dying.behind(dying.release()).await?;
    dying.until_dead().await?;
    dying.transaction.rollback().await?;
    assert!(!answer(release).await?);
    Ok(())
}

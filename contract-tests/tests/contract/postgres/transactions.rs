//! Locks inside a transaction of the caller, and writes that check a fence.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::sqlx::{self, Row};
use syncguard_postgres::{Acquired, Backend, Fence, LockManager};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::{pid, until_one_waits};
use super::{Outcome, cases, end_in, execute, fresh_id, fresh_key, lease, minute, service};
use contract_tests::servers::Server;

cases![
    a_lease_is_visible_after_the_commit,
    a_rollback_leaves_no_lease,
    work_commits_exactly_with_the_release,
    a_detached_lease_ends_with_the_work,
    a_lost_lease_is_detected_before_the_work_commits,
    an_operation_keeps_the_settings_of_the_transaction,
    an_operation_leaves_no_settings_in_its_session,
    a_stale_write_is_refused_by_its_fence,
];

async fn a_lease_is_visible_after_the_commit(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let mut transaction = backend.pool().begin().await?;
    let held =
        lease(backend.acquire_in(&mut transaction, key.as_str(), Duration::from_secs(60)).await)?
            .expect("free");
    assert_eq!(backend.get(&key).await?, None);
    let mut waiter = JoinSet::new();
    waiter.spawn({
        let (backend, key) = (backend.clone(), key.clone());
        async move { backend.acquire(&key, &fresh_id(), minute()).await }
    });
    let pid = pid(&mut transaction).await?;
    until_one_waits(backend.pool(), pid).await?;
    transaction.commit().await?;
    let answer = waiter.join_next().await.expect("it was spawned")??;
    assert!(matches!(answer, Acquired::Held { .. }));
    assert_eq!(backend.get(&key).await?.expect("it is held").id(), held.id());
    assert!(backend.release(&held).await?);
    Ok(())
}

async fn a_rollback_leaves_no_lease(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let mut transaction = backend.pool().begin().await?;
    let gone = lease(backend.acquire_in(&mut transaction, &key, minute()).await)?.expect("free");
    transaction.rollback().await?;
    assert!(!backend.release(&gone).await?);
    assert!(lease(backend.acquire(&key, &fresh_id(), minute()).await)?.is_some());
    Ok(())
}

async fn work_commits_exactly_with_the_release(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");

    let mut transaction = backend.pool().begin().await?;
    assert!(backend.release_in(&mut transaction, &held).await?);
    assert!(!backend.release_in(&mut transaction, &held).await?);
    assert!(lease(backend.acquire(&key, &fresh_id(), minute()).await)?.is_none());
    transaction.rollback().await?;
    assert!(backend.get(&key).await?.is_some());

    let mut transaction = backend.pool().begin().await?;
    assert!(backend.release_in(&mut transaction, &held).await?);
    transaction.commit().await?;
    assert!(lease(backend.acquire(&key, &fresh_id(), minute()).await)?.is_some());
    Ok(())
}

/// The transaction stays open past the time of the next renewal. Without the detach, that renewal
/// would wait for the transaction, find no lease, and signal a loss.
async fn a_detached_lease_ends_with_the_work(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let (locks, key) = (LockManager::new(backend.clone()), fresh_key());
    let ttl = Duration::from_secs(3);
    let guard = locks.lock(&key).ttl(ttl).keep_alive().acquire().await?;
    let lost = guard.lost_token();

    let mut transaction = backend.pool().begin().await?;
    let lease = guard.detach();
    assert!(backend.release_in(&mut transaction, &lease).await?);
    sleep(ttl / 2).await;
    transaction.commit().await?;

    assert_eq!(backend.get(&key).await?, None);
    sleep(ttl / 10).await;
    assert!(!lost.is_cancelled());
    Ok(())
}

async fn a_lost_lease_is_detected_before_the_work_commits(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let key = fresh_key();
    let lost = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    end_in(backend.pool(), &key, 0).await?;
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was dead");
    let mut transaction = backend.pool().begin().await?;
    assert!(!backend.release_in(&mut transaction, &lost).await?);
    transaction.rollback().await?;
    assert_eq!(backend.get(&key).await?.expect("it is held").id(), held.id());
    Ok(())
}

/// A plain release turns off synchronous commit. Inside a transaction it must not, because the work
/// of the caller commits with it.
async fn an_operation_keeps_the_settings_of_the_transaction(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let settings =
        "SELECT current_setting('synchronous_commit') || current_setting('lock_timeout')";
    let mut transaction = backend.pool().begin().await?;
    let before: String = sqlx::query(settings).fetch_one(&mut *transaction).await?.try_get(0)?;
    let key = fresh_key();
    let held = lease(backend.acquire_in(&mut transaction, &key, minute()).await)?.expect("free");
    assert!(lease(backend.acquire_in(&mut transaction, &key, minute()).await)?.is_none());
    assert!(backend.release_in(&mut transaction, &held).await?);
    let after: String = sqlx::query(settings).fetch_one(&mut *transaction).await?.try_get(0)?;
    assert_eq!(before, after);
    transaction.rollback().await?;

    Ok(())
}

/// A trigger records the settings of the session in a later statement that sets none.
async fn an_operation_leaves_no_settings_in_its_session(server: Arc<Server>) -> Outcome {
    let (pool, _) = super::empty_schema(&server).await?;
    let one = syncguard_postgres::PostgresBackend::builder().max_connections(1);
    let one = one.build(pool.clone())?;
    one.setup_schema().await?;
    let held = lease(one.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("free");
    lease(one.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("free");
    assert!(one.release(&held).await?);
    execute(
        &pool,
        "UPDATE syncguard_locks SET expires_at_ms = 0; \
         CREATE TABLE seen (settings TEXT); \
         CREATE FUNCTION record_settings() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO seen VALUES (current_setting('synchronous_commit') || ' ' \
                 || current_setting('lock_timeout')); \
             RETURN NULL; END $$; \
         CREATE TRIGGER record_settings AFTER DELETE ON syncguard_locks \
             FOR EACH ROW EXECUTE FUNCTION record_settings()",
    )
    .await?;
    assert_eq!(one.purge_expired(Duration::from_secs(60)).await?, 1);
    let seen: Vec<String> =
        sqlx::query_scalar("SELECT settings FROM seen").fetch_all(&pool).await?;
    assert_eq!(seen, ["on 0"]);
    Ok(())
}

/// Checks the two patterns in the docs of `syncguard_postgres::fencing`.
async fn a_stale_write_is_refused_by_its_fence(server: Arc<Server>) -> Outcome {
    let (pool, _) = super::empty_schema(&server).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    execute(
        &pool,
        "CREATE TABLE accounts (id INT PRIMARY KEY, balance INT, fence BIGINT NOT NULL DEFAULT 0); \
         INSERT INTO accounts VALUES (1, 0); \
         CREATE TABLE fences_seen (resource TEXT PRIMARY KEY, fence BIGINT NOT NULL)",
    )
    .await?;
    let key = fresh_key();
    let stale = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    end_in(&pool, &key, 0).await?;
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was dead");

    let write = async |fence: Fence| {
        let sql = "UPDATE accounts SET balance = $2, fence = $3 WHERE id = $1 AND fence <= $3";
        let fence = i64::try_from(fence.get()).unwrap();
        let query = sqlx::query(sql).bind(1).bind(7).bind(fence);
        query.execute(&pool).await.unwrap().rows_affected()
    };
    let present = async |fence: Fence| {
        let sql = "INSERT INTO fences_seen AS seen (resource, fence) VALUES ($1, $2) \
            ON CONFLICT (resource) DO UPDATE SET fence = EXCLUDED.fence \
            WHERE seen.fence <= EXCLUDED.fence RETURNING fence";
        let query = sqlx::query(sql).bind("account").bind(i64::try_from(fence.get()).unwrap());
        query.fetch_optional(&pool).await.unwrap().is_some()
    };
    assert_eq!((write(stale.fence()).await, write(held.fence()).await), (1, 1));
    assert_eq!((write(stale.fence()).await, write(held.fence()).await), (0, 1));
    assert!(present(stale.fence()).await && present(held.fence()).await);
    assert!(!present(stale.fence()).await && present(held.fence()).await);
    Ok(())
}

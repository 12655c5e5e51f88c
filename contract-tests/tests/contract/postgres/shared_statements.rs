//! Statements of many operations: leases that are dead, rows that others have locked, notifications.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::servers::Server;
use syncguard_postgres::sqlx::{self, Postgres, Transaction};
use syncguard_postgres::{Acquired, Backend, Key, Lease, PostgresBackend, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::group_commit::{futures_of, grouped};
use super::notifications::{Fixture, assert_notified, listening};
use super::{Outcome, cases, empty_schema, end_in, fresh_id, fresh_key, lease, minute, service};

cases![
    attempts_and_renewals_share_transactions,
    a_dead_lease_is_neither_renewed_nor_released,
    a_dead_lease_is_taken_over,
    each_release_notifies,
    a_locked_row_holds_no_other_release_up,
    a_locked_row_holds_no_other_renewal_up,
    a_locked_row_holds_no_other_attempt_up,
    an_attempt_alone_on_a_busy_key_holds_nobody_up,
    one_alone_on_a_locked_row_holds_nobody_up,
];

/// The first one goes out alone, and the others in one statement.
const MANY: usize = 20;

/// Less than the time for which a statement waits for a lock.
const SOON: Duration = Duration::from_secs(10);

/// Each transaction that wrote has an id of its own, which is in the rows.
async fn attempts_and_renewals_share_transactions(server: Arc<Server>) -> Outcome {
    let (pool, _) = empty_schema(&server).await?;
    let backend = grouped(&pool)?;
    backend.setup_schema().await?;
    let writers = async || -> Outcome<i64> {
        let sql = "SELECT count(DISTINCT xmin::text) FROM syncguard_locks";
        Ok(sqlx::query_scalar(sql).fetch_one(&pool).await?)
    };
    let pairs: Vec<_> = (0..400).map(|_| (fresh_key(), fresh_id())).collect();
    let attempts = pairs.iter().map(|(key, id)| backend.acquire(key, id, minute()));
    let mut leases = Vec::new();
    for acquired in futures_of(attempts).await {
        leases.push(lease(acquired)?.expect("the key was free"));
    }
    let shared = writers().await?;
    assert!(shared <= 100, "{shared} transactions for 400 attempts");
    let renewals = leases.iter().map(|lease| backend.extend(lease, minute()));
    for renewed in futures_of(renewals).await {
        assert!(renewed?.is_some());
    }
    let shared = writers().await?;
    assert!(shared <= 100, "{shared} transactions for 400 renewals");
    Ok(())
}

async fn leases(backend: &PostgresBackend) -> Outcome<Vec<Lease>> {
    let mut leases = Vec::new();
    for _ in 0..MANY {
        let acquired = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
        leases.push(lease(acquired)?.expect("the key was free"));
    }
    Ok(leases)
}

async fn a_dead_lease_is_neither_renewed_nor_released(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    let is_dead = |n: usize| n % 2 == 1;
    for (n, lease) in leases.iter().enumerate().filter(|(n, _)| is_dead(*n)) {
        end_in(service.pool(), lease.key(), 0).await.map_err(|error| format!("{n}: {error}"))?;
    }
    let renewals = leases.iter().map(|lease| backend.extend(lease, minute()));
    for (n, renewed) in futures_of(renewals).await.into_iter().enumerate() {
        assert_eq!(renewed?.is_none(), is_dead(n), "{n}");
    }
    let releases = leases.iter().map(|lease| backend.release(lease));
    for (n, released) in futures_of(releases).await.into_iter().enumerate() {
        assert_eq!(released?, !is_dead(n), "{n}");
    }
    Ok(())
}

async fn a_dead_lease_is_taken_over(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    let is_dead = |n: usize| n % 2 == 1;
    for (_, lease) in leases.iter().enumerate().filter(|(n, _)| is_dead(*n)) {
        end_in(service.pool(), lease.key(), 0).await?;
    }
    let ids: Vec<_> = leases.iter().map(|_| fresh_id()).collect();
    let attempts = leases.iter().zip(&ids);
    let attempts = attempts.map(|(lease, id)| backend.acquire(lease.key(), id, minute()));
    for (n, acquired) in futures_of(attempts).await.into_iter().enumerate() {
        match lease(acquired)? {
            Some(next) => assert!(is_dead(n) && next.fence() > leases[n].fence(), "{n}"),
            None => assert!(!is_dead(n), "{n}"),
        }
    }
    Ok(())
}

async fn each_release_notifies(server: Arc<Server>) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let waiter = fixture.waiter()?;
    let holder = fixture.named().group_commit(1, 100).build(fixture.pool.clone())?;
    let (mut leases, mut notifications) = (Vec::new(), Vec::new());
    for _ in 0..MANY {
        let acquired = holder.acquire(&fixture.key().await?, &fresh_id(), minute()).await;
        let held = lease(acquired)?.expect("the key was free");
        notifications.push(listening(&waiter, held.key()).await);
        leases.push(held);
    }
    let releases = leases.iter().map(|lease| holder.release(lease));
    for released in futures_of(releases).await {
        assert!(released?);
    }
    for notification in notifications {
        assert_notified(notification).await;
    }
    Ok(())
}

/// Locks the row of a key, as a transaction of another client does.
async fn lock_row(
    service: &PostgresBackend,
    key: &Key,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = service.pool().begin().await?;
    let lock = sqlx::query("SELECT FROM syncguard_locks WHERE key = $1 FOR UPDATE");
    lock.bind(key.as_str()).execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Starts an operation for each lease, and checks that all but that for `locked` end soon. That one
/// ends when its row is free.
async fn all_but_one_end<T: Send + 'static, F>(
    leases: &[Lease],
    locked: usize,
    transaction: Transaction<'static, Postgres>,
    operation: impl Fn(Lease) -> F,
) -> Outcome<Vec<T>>
where
    F: Future<Output = Result<T>> + Send + 'static,
{
    let start = |lease: &Lease| tokio::spawn(operation(lease.clone()));
    let mut tasks: Vec<JoinHandle<Result<T>>> = leases.iter().map(start).collect();
    let waiting = tasks.remove(locked);
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(timeout(SOON, task).await.map_err(|_| "it waits for the row")???);
    }
    assert!(!waiting.is_finished(), "the row is still locked");
    transaction.rollback().await?;
    answers.insert(locked, waiting.await??);
    Ok(answers)
}

async fn a_locked_row_holds_no_other_release_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    let transaction = lock_row(&service, leases[7].key()).await?;
    let release = |lease| {
        let backend = backend.clone();
        async move { backend.release(&lease).await }
    };
    let released = all_but_one_end(&leases, 7, transaction, release).await?;
    assert!(released.iter().all(|released| *released));
    Ok(())
}

async fn a_locked_row_holds_no_other_renewal_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    let transaction = lock_row(&service, leases[7].key()).await?;
    let renew = |lease| {
        let backend = backend.clone();
        async move { backend.extend(&lease, minute()).await }
    };
    let renewed = all_but_one_end(&leases, 7, transaction, renew).await?;
    assert!(renewed.iter().all(Option::is_some));
    Ok(())
}

async fn a_locked_row_holds_no_other_attempt_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    for lease in &leases {
        end_in(service.pool(), lease.key(), 0).await?;
    }
    let transaction = lock_row(&service, leases[7].key()).await?;
    let acquire = |old: Lease| {
        let backend = backend.clone();
        async move { backend.acquire(old.key(), &fresh_id(), minute()).await }
    };
    let acquired = all_but_one_end(&leases, 7, transaction, acquire).await?;
    assert!(acquired.iter().all(|acquired| matches!(acquired, Acquired::Granted(_))));
    Ok(())
}

/// The first renewal, or the first release, has the only lane to itself.
async fn one_alone_on_a_locked_row_holds_nobody_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let leases = leases(&backend).await?;
    for renews in [true, false] {
        let end = async |lease: &Lease| match renews {
            true => backend.extend(lease, minute()).await.map(|renewed| renewed.is_some()),
            false => backend.release(lease).await,
        };
        let transaction = lock_row(&service, leases[0].key()).await?;
        let (first, others) = tokio::join!(biased; end(&leases[0]), async {
            let others = futures_of(leases[1..].iter().map(&end));
            let others = timeout(SOON, others).await.map_err(|_| "they wait for the row");
            transaction.rollback().await?;
            Outcome::Ok(others?)
        });
        assert!(first?);
        assert!(others?.into_iter().collect::<Result<Vec<_>>>()?.iter().all(|live| *live));
    }
    Ok(())
}

/// It has the only lane to itself, and gives it back at once. A lane that it kept would be taken from it
/// after a second.
async fn an_attempt_alone_on_a_busy_key_holds_nobody_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    backend.get(&fresh_key()).await?;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let key = fresh_key();
        let mut open = service.pool().begin().await?;
        lease(service.acquire_in(&mut open, &key, minute()).await)?.expect("the key was free");
        let (id, start) = (fresh_id(), Instant::now());
        let (waited, other) = tokio::join!(backend.acquire(&key, &id, minute()), async {
            let other = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
            fastest = fastest.min(start.elapsed());
            open.rollback().await?;
            Outcome::Ok(lease(other)?)
        });
        assert!(other?.is_some() && lease(waited)?.is_some());
    }
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
    Ok(())
}

//! Group commit: operations that share a statement keep their own answers.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use syncguard_memory::MemoryBackend;
use syncguard_postgres::sqlx::postgres::PgPool;
use syncguard_postgres::sqlx::{self, AssertSqlSafe};
use syncguard_postgres::{
    Acquired, Backend, ErrorCode, Fence, Key, Lease, LockId, PostgresBackend, Ttl,
};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use contract_tests::servers::Server;

use super::faults::{pid, waiting};
use super::{
    Outcome, cases, empty_schema, execute, fresh_id, fresh_key, lease, minute, other_client,
    service,
};

cases![
    a_busy_key_is_answered_alone_and_holds_nobody_up,
    a_value_that_the_tables_refuse_fails_alone,
    an_operation_that_a_trigger_refuses_fails_alone,
    of_many_attempts_on_one_key_one_is_granted,
    random_operations_have_the_answers_of_the_memory_backend,
    renewals_and_releases_of_lost_leases_fail_alone,
    statements_of_many_and_of_one_never_deadlock,
];

const SECOND: Duration = Duration::from_secs(1);

/// One statement at a time, so that whatever arrives meanwhile shares the next one.
pub(super) fn grouped(pool: &PgPool) -> super::Result<PostgresBackend> {
    let builder = PostgresBackend::builder().command_timeout(super::PATIENCE);
    builder.group_commit(1, 100).build(pool.clone())
}

async fn a_busy_key_is_answered_alone_and_holds_nobody_up(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let busy = [fresh_key(), fresh_key(), fresh_key()];
    let mut open = service.pool().begin().await?;
    for key in &busy {
        lease(service.acquire_in(&mut open, key, minute()).await)?.expect("the key was free");
    }
    let mut others = JoinSet::new();
    let waiting = busy.each_ref().map(|key| spawn_acquire(&backend, key));
    for _ in 0..20 {
        let backend = backend.clone();
        others.spawn(async move { backend.acquire(&fresh_key(), &fresh_id(), minute()).await });
    }
    // A lane that waited for a busy key would be taken for half of the command timeout.
    while let Some(acquired) = timeout(10 * SECOND, others.join_next()).await? {
        lease(acquired?)?.expect("the key was free");
    }
    assert!(!waiting.iter().any(JoinHandle::is_finished), "the transaction still holds the keys");
    open.rollback().await?;
    for waiting in waiting {
        lease(waiting.await?)?.expect("the key is free again");
    }
    Ok(())
}

fn spawn_acquire(backend: &PostgresBackend, key: &Key) -> JoinHandle<super::Result<Acquired>> {
    let (backend, key) = (backend.clone(), key.clone());
    tokio::spawn(async move { backend.acquire(&key, &fresh_id(), minute()).await })
}

async fn a_value_that_the_tables_refuse_fails_alone(server: Arc<Server>) -> Outcome {
    let check = "ALTER TABLE syncguard_locks ADD CHECK (key <> 'refused')";
    fails_alone(&server, &[check], ErrorCode::InvalidArgument).await
}

async fn an_operation_that_a_trigger_refuses_fails_alone(server: Arc<Server>) -> Outcome {
    let function = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                    RAISE EXCEPTION 'not this key'; END $$";
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON syncguard_locks FOR EACH ROW \
                   WHEN (NEW.key = 'refused') EXECUTE FUNCTION refuse()";
    fails_alone(&server, &[function, trigger], ErrorCode::Internal).await
}

/// Attempts share statements, and some of them are refused with this code.
async fn fails_alone(server: &Server, refuse: &[&str], code: ErrorCode) -> Outcome {
    let (pool, _) = empty_schema(server).await?;
    let backend = grouped(&pool)?;
    backend.setup_schema().await?;
    for sql in refuse {
        execute(&pool, *sql).await?;
    }
    let mut attempts = JoinSet::new();
    for n in 0..30 {
        let name = if n % 10 == 5 { "refused".to_owned() } else { format!("key {n}") };
        let (backend, key) = (backend.clone(), Key::new(&name)?);
        attempts.spawn(async move {
            let acquired = backend.acquire(&key, &fresh_id(), minute()).await;
            (key, lease(acquired))
        });
    }
    while let Some(answer) = attempts.join_next().await {
        let (key, acquired) = answer?;
        match key.as_str() {
            "refused" => assert_eq!(acquired.unwrap_err().code(), code),
            _ => assert!(acquired?.is_some()),
        }
    }
    Ok(())
}

async fn of_many_attempts_on_one_key_one_is_granted(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    for _ in 0..5 {
        let key = fresh_key();
        let mut attempts = JoinSet::new();
        for _ in 0..16 {
            let (backend, key) = (backend.clone(), key.clone());
            attempts.spawn(async move { backend.acquire(&key, &fresh_id(), minute()).await });
        }
        let mut granted = 0;
        while let Some(acquired) = attempts.join_next().await {
            granted += usize::from(lease(acquired?)?.is_some());
        }
        assert_eq!(granted, 1);
    }
    Ok(())
}

async fn renewals_and_releases_of_lost_leases_fail_alone(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let mut leases = Vec::new();
    for _ in 0..20 {
        let acquired = backend.acquire(&fresh_key(), &fresh_id(), minute()).await;
        leases.push(lease(acquired)?.expect("the key was free"));
    }
    for lost in leases.iter().step_by(3) {
        assert!(service.release(lost).await?);
    }
    let is_lost = |n: usize| n.is_multiple_of(3);
    let renewals = leases.iter().map(|lease| backend.extend(lease, minute()));
    for (n, renewed) in futures_of(renewals).await.into_iter().enumerate() {
        assert_eq!(renewed?.is_none(), is_lost(n));
    }
    let releases = leases.iter().map(|lease| backend.release(lease));
    for (n, released) in futures_of(releases).await.into_iter().enumerate() {
        assert_eq!(released?, !is_lost(n));
    }
    Ok(())
}

/// Polls all of them in one task until each has ended.
pub(super) async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// Each task works on a key of its own, so the memory backend says what every answer must be. All tasks
/// share statements.
async fn random_operations_have_the_answers_of_the_memory_backend(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let backend = grouped(service.pool())?;
    let mut tasks = JoinSet::new();
    for _ in 0..24 {
        let backend = backend.clone();
        tasks.spawn(async move {
            let (memory, key) = (MemoryBackend::new(), fresh_key());
            let ids = [fresh_id(), fresh_id(), fresh_id()];
            let mut leases: HashMap<LockId, (Lease, Lease)> = HashMap::new();
            let mut highest = Fence::new(0)?;
            for _ in 0..40 {
                let id = ids[fastrand::usize(..ids.len())].clone();
                match (fastrand::u8(..4), leases.get(&id).cloned()) {
                    (0 | 1, _) => {
                        let stored = lease(backend.acquire(&key, &id, minute()).await)?;
                        let modelled = lease(memory.acquire(&key, &id, minute()).await)?;
                        assert_eq!(stored.is_some(), modelled.is_some());
                        if let Some(both) = stored.zip(modelled) {
                            // A repeat of an attempt leaves a gap.
                            let earlier = leases.insert(id, both.clone());
                            let same =
                                earlier.filter(|earlier| earlier.1.fence() == both.1.fence());
                            match same {
                                Some((stored, _)) => assert_eq!(both.0.fence(), stored.fence()),
                                None => assert!(both.0.fence() > highest),
                            }
                            highest = both.0.fence();
                        }
                    }
                    (2, Some((stored, modelled))) => {
                        let ttl: Ttl = (30 * SECOND).try_into()?;
                        let renewed = backend.extend(&stored, ttl).await?;
                        assert_eq!(
                            renewed.is_some(),
                            memory.extend(&modelled, ttl).await?.is_some()
                        );
                    }
                    (3, Some((stored, modelled))) => {
                        let released = backend.release(&stored).await?;
                        assert_eq!(released, memory.release(&modelled).await?);
                    }
                    _ => {}
                }
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Statements of many, of one, transactions of a caller, and those of the TypeScript client on the same
/// few keys. The server counts deadlocks, also those that a repeat would hide.
async fn statements_of_many_and_of_one_never_deadlock(server: Arc<Server>) -> Outcome {
    let service = service(&server).await?;
    let name = format!("trial_{}", fresh_id().fingerprint());
    execute(service.pool(), format!("CREATE DATABASE {name}")).await?;
    let options = service.pool().connect_options().as_ref().clone().database(&name);
    let pool = super::pool_of(20).connect_with(options).await?;
    let (one, two) = (grouped(&pool)?, grouped(&pool)?);
    one.setup_schema().await?;
    let builder = PostgresBackend::builder().command_timeout(super::PATIENCE);
    let alone = builder.without_group_commit().build(pool.clone())?;
    let keys: Arc<Vec<_>> = Arc::new((0..12).map(|_| fresh_key()).collect());
    let mut tasks = JoinSet::new();
    for n in 0..32 {
        let backend = [&one, &two, &alone][n % 3].clone();
        let keys = keys.clone();
        tasks.spawn(async move {
            for _ in 0..40 {
                let key = &keys[fastrand::usize(..keys.len())];
                let acquired = backend.acquire(key, &fresh_id(), minute()).await;
                if let Some(held) = lease(acquired)? {
                    backend.extend(&held, minute()).await?;
                    assert!(backend.release(&held).await?);
                }
            }
            Outcome::Ok(())
        });
    }
    for _ in 0..4 {
        let (alone, keys) = (alone.clone(), keys.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                let mut transaction = alone.pool().begin().await?;
                let key = &keys[fastrand::usize(..keys.len())];
                lease(alone.acquire_in(&mut transaction, key, minute()).await)?;
                transaction.rollback().await?;
            }
            Outcome::Ok(())
        });
    }
    for _ in 0..4 {
        let (pool, keys) = (pool.clone(), keys.clone());
        tasks.spawn(async move {
            for _ in 0..20 {
                let mut connection = pool.acquire().await?;
                let (key, id) = (&keys[fastrand::usize(..keys.len())], fresh_id());
                if other_client::acquire(&mut connection, key, &id).await?.is_some() {
                    other_client::release(&mut connection, &id).await?;
                }
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    assert_eq!(deadlocks(&pool, &name, 0).await?, 0);

    unsorted_statements_that_wait_deadlock(&pool).await?;
    assert_eq!(deadlocks(&pool, &name, 1).await?, 1);
    Ok(())
}

/// The control: the statement of many, changed so that it waits for each key, in the order in which the keys
/// came. Two of them go from both ends to a key that a third transaction has, and then on.
async fn unsorted_statements_that_wait_deadlock(pool: &PgPool) -> Outcome {
    let statement =
        include_str!("../../../../crates/syncguard-postgres/src/operations/sql/acquire_many.sql");
    let waits = [
        ("OFFSET 0) AS free", "ORDER BY n OFFSET 0) AS free"),
        (
            "WHERE pg_try_advisory_xact_lock(hashtext(key))",
            "WHERE pg_advisory_xact_lock(hashtext(key)) IS NOT NULL",
        ),
    ];
    let waits = waits.iter().fold(statement.to_owned(), |statement, (found, replacement)| {
        assert!(statement.contains(found));
        statement.replace(found, replacement)
    });
    let waits = waits
        .replace("{now}", "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .replace("{max_fence}", "900000000000000")
        .replace("{locks}", "syncguard_locks")
        .replace("{fences}", "syncguard_fence_counters");
    let acquire = async |keys: Vec<String>| {
        let ids: Vec<_> = keys.iter().map(|_| fresh_id().as_str().to_owned()).collect();
        let ttls = vec![60_000_i64; keys.len()];
        let query = sqlx::query(AssertSqlSafe(waits.clone()));
        query.bind(keys).bind(ids).bind(ttls).bind(None::<i64>).fetch_all(pool).await
    };
    let keys: Vec<_> = (0..9).map(|_| fresh_key().as_str().to_owned()).collect();
    let reversed = keys.iter().rev().cloned().collect();
    let mut middle = pool.begin().await?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))").bind(&keys[4]);
    lock.execute(&mut *middle).await?;
    let holder = pid(&mut middle).await?;
    let both = async { tokio::join!(acquire(keys.clone()), acquire(reversed)) };
    let free = async {
        while waiting(pool, holder).await? < 2 {}
        middle.rollback().await
    };
    let (mut both, mut free) = (pin!(both), pin!(free));
    let (one, other) = tokio::select! {
        freed = &mut free => {
            freed?;
            both.await
        }
        // They did not wait.
        ended = &mut both => ended,
    };
    let refused = one.err().or(other.err()).expect("the server ends one of the two");
    let code = refused.as_database_error().and_then(|error| error.code().map(String::from));
    assert_eq!(code.as_deref(), Some("40P01"));
    Ok(())
}

/// Reads how many deadlocks the server broke. It publishes the number after a moment.
async fn deadlocks(pool: &PgPool, database: &str, expected: i64) -> sqlx::Result<i64> {
    let sql = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{database}'");
    let mut counted = 0;
    for _ in 0..50 {
        counted = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(pool).await?;
        if counted >= expected && expected > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(if expected > 0 { 100 } else { 40 })).await;
    }
    Ok(counted)
}

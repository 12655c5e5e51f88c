//! Locks shared with SyncGuard for TypeScript. These trials run the same statements as that client.

use std::error::Error;
use std::sync::Arc;

use syncguard_postgres::sqlx::postgres::PgConnection;
use syncguard_postgres::sqlx::{self, Connection};
use syncguard_postgres::{Backend, Fence, Key, LockId};
use tokio::task::JoinSet;

use super::{Outcome, cases, end_in, fresh_id, fresh_key, lease, minute, service};
use contract_tests::servers::Server;

cases![
    a1_racers_of_both_clients_have_one_holder_and_rising_fences,
    r3_an_extend_in_the_last_second_and_an_acquire_never_both_win,
    l1_each_client_finds_and_ends_leases_of_the_other,
    rows_of_the_other_client_are_read_and_written_alike,
];

/// Acquires a lock as the TypeScript client does. It takes the time of the transaction's start,
/// reads the row without locking it, and then overwrites the row without a condition.
pub(super) async fn acquire(
    connection: &mut PgConnection,
    key: &Key,
    id: &LockId,
) -> sqlx::Result<Option<Fence>> {
    let (key, fence_key) = (key.as_str(), format!("fence:{}", key.as_str()));
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext($1))")
        .bind(key)
        .execute(&mut *transaction)
        .await?;
    let now: i64 = sqlx::query_scalar("SELECT FLOOR(EXTRACT(EPOCH FROM NOW()) * 1000)::BIGINT")
        .fetch_one(&mut *transaction)
        .await?;
    let expires: Option<i64> =
        sqlx::query_scalar("SELECT expires_at_ms FROM \"syncguard_locks\" WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await?;
    if expires.is_some_and(|expires| expires > now - 1_000) {
        transaction.commit().await?;
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO \"syncguard_fence_counters\" (fence_key, fence, key_debug) VALUES ($1, 0, $2) \
         ON CONFLICT (fence_key) DO NOTHING",
    )
    .bind(&fence_key)
    .bind(key)
    .execute(&mut *transaction)
    .await?;
    let fence: i64 = sqlx::query_scalar(
        "UPDATE \"syncguard_fence_counters\" SET fence = fence + 1 WHERE fence_key = $1 \
         RETURNING fence",
    )
    .bind(&fence_key)
    .fetch_one(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO \"syncguard_locks\" \
         (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key) \
         VALUES ($1, $2, $3, $4, $5, $1) ON CONFLICT (key) DO UPDATE SET \
         lock_id = EXCLUDED.lock_id, expires_at_ms = EXCLUDED.expires_at_ms, \
         acquired_at_ms = EXCLUDED.acquired_at_ms, fence = EXCLUDED.fence, \
         user_key = EXCLUDED.user_key",
    )
    .bind(key)
    .bind(id.as_str())
    .bind(now + 60_000)
    .bind(now)
    .bind(format!("{fence:015}"))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Fence::new(fence.unsigned_abs()).ok())
}

/// Releases a lock as the TypeScript client does.
pub(super) async fn release(connection: &mut PgConnection, id: &LockId) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    let row: Option<(String, i64, i64)> = sqlx::query_as(
        "SELECT key, expires_at_ms, FLOOR(EXTRACT(EPOCH FROM NOW()) * 1000)::BIGINT \
         FROM \"syncguard_locks\" WHERE lock_id = $1 FOR UPDATE",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    let live = row.filter(|(_, expires, now)| *expires > now - 1_000);
    if let Some((key, ..)) = &live {
        sqlx::query("DELETE FROM \"syncguard_locks\" WHERE key = $1")
            .bind(key)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(live.is_some())
}

async fn a1_racers_of_both_clients_have_one_holder_and_rising_fences(
    server: Arc<Server>,
) -> Outcome {
    let ours = service(&server).await?;
    let (key, mut last) = (fresh_key(), None);
    for round in 0..50 {
        // In even rounds there is no row, in odd rounds a dead one.
        end_in(ours.pool(), &key, 0).await?;
        if round % 2 == 0 {
            let gone = sqlx::query("DELETE FROM syncguard_locks WHERE key = $1");
            gone.bind(key.as_str()).execute(ours.pool()).await?;
        }
        let mut racers = JoinSet::new();
        for _ in 0..8 {
            let (client, same) = (ours.clone(), key.clone());
            racers.spawn(async move {
                let won = lease(client.acquire(&same, &fresh_id(), minute()).await)?;
                Ok::<_, Box<dyn Error + Send + Sync>>(won.map(|lease| lease.fence()))
            });
            let (pool, key) = (ours.pool().clone(), key.clone());
            racers.spawn(async move {
                let mut connection = pool.acquire().await?;
                Ok(acquire(&mut connection, &key, &fresh_id()).await?)
            });
        }
        let mut won = Vec::new();
        while let Some(racer) = racers.join_next().await {
            won.extend(racer??);
        }
        assert_eq!(won.len(), 1, "round {round}: {won:?}");
        assert!(Some(won[0]) > last, "{won:?} after {last:?}");
        last = Some(won[0]);
        assert_eq!(ours.get(&key).await?.expect("it is held").fence(), won[0]);
    }
    Ok(())
}

/// Extends a lease that is about to expire, while the other client acquires the key.
async fn r3_an_extend_in_the_last_second_and_an_acquire_never_both_win(
    server: Arc<Server>,
) -> Outcome {
    let ours = service(&server).await?;
    let (mut extended, mut left) = (0, 2);
    for _ in 0..200 {
        let key = fresh_key();
        let held = lease(ours.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");
        end_in(ours.pool(), &key, left).await?;
        let (extend, acquire) = tokio::join!(ours.extend(&held, minute()), async {
            let mut connection = ours.pool().acquire().await?;
            acquire(&mut connection, &key, &fresh_id()).await
        });
        let (extend, acquire) = (extend?, acquire?);
        assert!(extend.is_none() || acquire.is_none(), "both won");
        extended += u32::from(extend.is_some());
        // So that each wins now and then, however fast the server is.
        left += if extend.is_some() { -1 } else { 1 };
    }
    assert!(extended > 0, "the race was never won by the extend");
    Ok(())
}

async fn l1_each_client_finds_and_ends_leases_of_the_other(server: Arc<Server>) -> Outcome {
    let ours = service(&server).await?;
    let mut connection = ours.pool().acquire().await?;

    let (key, id) = (fresh_key(), fresh_id());
    let fence = acquire(&mut connection, &key, &id).await?.expect("it was free");
    let record = ours.get(&key).await?.expect("it is held");
    assert_eq!((record.id(), record.fence(), record.key()), (&id, fence, &key));
    assert!(lease(ours.acquire(&key, &fresh_id(), minute()).await)?.is_none());
    assert!(ours.extend_by_id(&id, minute()).await?.is_some());
    assert!(ours.release_by_id(&id).await?);

    let held = lease(ours.acquire(&key, &fresh_id(), minute()).await)?.expect("it was freed");
    assert!(held.fence() > fence);
    assert_eq!(acquire(&mut connection, &key, &fresh_id()).await?, None);
    assert!(release(&mut connection, held.id()).await?);
    assert!(!ours.release(&held).await?);
    assert!(acquire(&mut connection, &key, &fresh_id()).await? > Some(held.fence()));
    Ok(())
}

/// Reads rows that the TypeScript client wrote, and compares our rows for the same keys.
async fn rows_of_the_other_client_are_read_and_written_alike(server: Arc<Server>) -> Outcome {
    let (pool, _) = super::empty_schema(&server).await?;
    let ours = super::patient(pool.clone())?;
    ours.setup_schema().await?;
    for (key, id) in [
        ("resource:123", "T2a4dYhUxafPubHmCw_UPw"),
        ("caf\u{e9}", "INRajkdfLfUMTOJpGBkjMQ"),
        ("quote\"and\\slash/\u{e9}\u{1f512}", "34FXfIzYKAa8t1SVKQItmA"),
    ] {
        sqlx::query(
            "INSERT INTO syncguard_locks \
             (key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key) \
             VALUES ($1, $2, 9795451839818, 1795451239818, '000000000000002', $1)",
        )
        .bind(key)
        .bind(id)
        .execute(&pool)
        .await?;
        sqlx::query("INSERT INTO syncguard_fence_counters VALUES ('fence:' || $1, 2, $1)")
            .bind(key)
            .execute(&pool)
            .await?;
        let (key, id): (Key, LockId) = (key.parse()?, id.parse()?);
        for record in [ours.get(&key).await?, ours.find(&id).await?] {
            let record = record.expect("it is live");
            assert_eq!((record.key(), record.id(), record.fence().get()), (&key, &id, 2));
            assert_eq!(record.acquired_at().as_millis(), 1_795_451_239_818);
            assert_eq!(record.expires_at().as_millis(), 9_795_451_839_818);
        }
        assert!(ours.release_by_id(&id).await?);

        let again = lease(ours.acquire(&key, &id, minute()).await)?.expect("it was freed");
        let row: (String, String, i64, i64, String, String) = sqlx::query_as(
            "SELECT key, lock_id, expires_at_ms, acquired_at_ms, fence, user_key \
             FROM syncguard_locks WHERE lock_id = $1",
        )
        .bind(id.as_str())
        .fetch_one(&pool)
        .await?;
        assert_eq!((&*row.0, &*row.1, &*row.5), (key.as_str(), id.as_str(), key.as_str()));
        assert_eq!((row.4.as_str(), row.2 - row.3), ("000000000000003", 60_000));
        assert_eq!(row.2.unsigned_abs(), again.expires_at().as_millis());
        let counter: (i64, Option<String>) = sqlx::query_as(
            "SELECT fence, key_debug FROM syncguard_fence_counters WHERE fence_key = 'fence:' || $1",
        )
        .bind(key.as_str())
        .fetch_one(&pool)
        .await?;
        assert_eq!(counter, (3, Some(key.as_str().to_owned())));
    }
    Ok(())
}

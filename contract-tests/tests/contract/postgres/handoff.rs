//! Handoff: one lease ends and the next begins in one atomic step.

use std::sync::Arc;

use syncguard_postgres::sqlx;
use syncguard_postgres::sqlx::postgres::PgPool;
use syncguard_postgres::{Backend, Error, ErrorCode, Key, Lease, PostgresBackend};
use tokio::task::JoinSet;

use super::other_client::{acquire, release};
use super::overlaps::{Dying, answer};
use super::{Outcome, cases, end_in, execute, fresh_id, fresh_key, lease, minute, service};
use contract_tests::servers::Server;

cases![
    a3_a_handoff_writes_the_same_row_as_a_grant,
    r1_an_ended_lease_is_not_handed_off,
    a6_an_exhausted_counter_leaves_the_old_lease_unchanged,
    r2_one_racer_ends_a_lease_and_one_holds_the_next,
    a1_a_handoff_in_the_last_second_and_an_acquire_never_both_win,
    r2_a_handoff_behind_an_extend_hands_off_the_renewed_lease,
    r2_a_handoff_behind_a_release_grants_nothing,
    r2_a_handoff_behind_a_rolled_back_release_is_too_late,
    r2_a_handoff_behind_a_takeover_grants_nothing,
    a_handoff_is_on_disk_before_it_is_answered,
];

/// Every column of a lock and of its fence counter.
type Row = (String, String, i64, i64, String, String, i64, Option<String>);

async fn row(pool: &PgPool, key: &Key) -> sqlx::Result<Option<Row>> {
    let sql = "SELECT key, lock_id, expires_at_ms, acquired_at_ms, l.fence, user_key, c.fence, \
        key_debug FROM syncguard_locks l JOIN syncguard_fence_counters c \
        ON fence_key = 'fence:' || key WHERE key = $1";
    sqlx::query_as(sql).bind(key.as_str()).fetch_optional(pool).await
}

async fn held(backend: &PostgresBackend) -> Result<(Key, Lease), Error> {
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("free");
    Ok((key, held))
}

async fn a3_a_handoff_writes_the_same_row_as_a_grant(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let (key, old) = held(&backend).await?;
    let before = row(backend.pool(), &key).await?.expect("it is held");
    let id = fresh_id();
    let new = backend.handoff(&old, &id, minute()).await?.expect("it was live");
    assert_eq!((new.key(), new.id(), new.fence().get()), (&key, &id, old.fence().get() + 1));

    let after = row(backend.pool(), &key).await?.expect("it is held");
    let (_, _, expires_at, acquired_at, ..) = after;
    assert!(acquired_at > before.3, "{after:?} after {before:?}");
    assert_eq!(expires_at - acquired_at, 60_000);
    assert_eq!(expires_at.unsigned_abs(), new.expires_at().as_millis());
    let (name, id) = (key.as_str().to_owned(), id.as_str().to_owned());
    let fence = "000000000000002".to_owned();
    let expected = (name.clone(), id, expires_at, acquired_at, fence, name.clone(), 2, Some(name));
    assert_eq!(after, expected);

    assert!(!backend.release(&old).await?);
    assert_eq!(backend.extend(&old, minute()).await?, None);
    assert!(backend.extend(&new, minute()).await?.is_some());
    assert!(backend.release(&new).await?);
    Ok(())
}

async fn r1_an_ended_lease_is_not_handed_off(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let (key, gone) = held(&backend).await?;
    let nothing = async || backend.handoff(&gone, &fresh_id(), minute()).await;

    end_in(backend.pool(), &key, 0).await?;
    let dead = row(backend.pool(), &key).await?;
    assert_eq!((nothing().await?, row(backend.pool(), &key).await?), (None, dead));

    let next = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was dead");
    let replaced = row(backend.pool(), &key).await?;
    assert_eq!((nothing().await?, row(backend.pool(), &key).await?), (None, replaced));

    assert!(backend.release(&next).await?);
    assert_eq!((nothing().await?, backend.get(&key).await?), (None, None));
    Ok(())
}

async fn a6_an_exhausted_counter_leaves_the_old_lease_unchanged(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    for counter in [900_000_000_000_000_i64, -7, i64::MAX] {
        let (key, old) = held(&backend).await?;
        let set = "UPDATE syncguard_fence_counters SET fence = $2 WHERE fence_key = 'fence:' || $1";
        sqlx::query(set).bind(key.as_str()).bind(counter).execute(backend.pool()).await?;
        let before = row(backend.pool(), &key).await?;
        let error = backend.handoff(&old, &fresh_id(), minute()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{error}");
        assert_eq!(row(backend.pool(), &key).await?, before);
        assert!(backend.release(&old).await?);
    }
    Ok(())
}

/// The success of one racer: it ended the old lease, holds the next one, or both.
#[derive(Debug, PartialEq, Eq)]
enum Won {
    Ended,
    HandedOff,
    Taken,
}

/// Races handoffs, releases, renewals and acquires of both clients.
async fn r2_one_racer_ends_a_lease_and_one_holds_the_next(server: Arc<Server>) -> Outcome {
    let backend = service(&server).await?;
    let (mut handed_off, mut ended) = (0, 0);
    for _ in 0..100 {
        let (key, old) = held(&backend).await?;
        let mut racers = JoinSet::new();
        // On a busy machine, the first one to start always wins.
        let mut order: Vec<_> = (0..8).collect();
        fastrand::shuffle(&mut order);
        for racer in order {
            let (ours, key, old) = (backend.clone(), key.clone(), old.clone());
            racers.spawn(async move {
                let id = fresh_id();
                let won = match racer {
                    0..=2 => ours.handoff(&old, &id, minute()).await?.map(|_| Won::HandedOff),
                    3 => ours.release(&old).await?.then_some(Won::Ended),
                    4 => ours.extend(&old, minute()).await?.and(None),
                    5 => lease(ours.acquire(&key, &id, minute()).await)?.map(|_| Won::Taken),
                    6 => {
                        let mut theirs = ours.pool().acquire().await?;
                        release(&mut theirs, old.id()).await?.then_some(Won::Ended)
                    }
                    _ => {
                        let mut theirs = ours.pool().acquire().await?;
                        acquire(&mut theirs, &key, &id).await?.map(|_| Won::Taken)
                    }
                };
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(won.map(|won| (won, id)))
            });
        }
        let mut all = Vec::new();
        while let Some(racer) = racers.join_next().await {
            all.extend(racer??);
        }
        let ends = all.iter().filter(|(won, _)| *won != Won::Taken).count();
        let holders: Vec<_> = all.iter().filter(|(won, _)| *won != Won::Ended).collect();
        assert!(ends == 1 && holders.len() <= 1, "{all:?}");
        let holder = backend.get(&key).await?;
        assert_eq!(holder.as_ref().map(|it| it.id()), holders.first().map(|(_, id)| id));
        assert!(holder.is_none_or(|holder| holder.fence() > old.fence()));
        handed_off += usize::from(holders.iter().any(|(won, _)| *won == Won::HandedOff));
        ended += usize::from(all.iter().any(|(won, _)| *won == Won::Ended));
    }
    assert!(
        handed_off > 0 && ended > 0,
        "one kind never won: {handed_off} handoffs, {ended} releases"
    );
    Ok(())
}

/// The other client reads the row without locking it, and then overwrites it.
async fn a1_a_handoff_in_the_last_second_and_an_acquire_never_both_win(
    server: Arc<Server>,
) -> Outcome {
    let ours = service(&server).await?;
    let (mut handed_off, mut left) = (0, 2);
    for _ in 0..200 {
        let (key, old) = held(&ours).await?;
        end_in(ours.pool(), &key, left).await?;
        let id = fresh_id();
        let (handoff, acquire) = tokio::join!(ours.handoff(&old, &id, minute()), async {
            let mut connection = ours.pool().acquire().await?;
            acquire(&mut connection, &key, &fresh_id()).await
        });
        let (handoff, acquire) = (handoff?, acquire?);
        assert!(handoff.is_none() || acquire.is_none(), "both won");
        handed_off += u32::from(handoff.is_some());
        // So that each wins now and then, however fast the server is.
        left += if handoff.is_some() { -1 } else { 1 };
    }
    assert!(handed_off > 0, "the race was never won by the handoff");
    Ok(())
}

fn handoff(dying: &Dying) -> impl Future<Output = Result<bool, Error>> + Send + 'static {
    let (backend, lease) = (dying.backend.clone(), dying.lease.clone());
    async move { Ok(backend.handoff(&lease, &fresh_id(), minute()).await?.is_some()) }
}

async fn r2_a_handoff_behind_an_extend_hands_off_the_renewed_lease(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.renew().await?;
    dying.until_dead().await?;
    let next = dying.behind(handoff(&dying)).await?;
    dying.transaction.commit().await?;
    assert!(answer(next).await?);
    let record = dying.backend.get(&dying.key).await?.expect("it is held");
    assert!(record.id() != dying.lease.id() && record.fence() > dying.lease.fence());
    Ok(())
}

async fn r2_a_handoff_behind_a_release_grants_nothing(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.renew().await?;
    assert!(dying.end().await?);
    let next = dying.behind(handoff(&dying)).await?;
    dying.transaction.commit().await?;
    assert!(!answer(next).await?);
    assert_eq!(dying.backend.get(&dying.key).await?, None);
    Ok(())
}

async fn r2_a_handoff_behind_a_rolled_back_release_is_too_late(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.end().await?;
    let next = dying.behind(handoff(&dying)).await?;
    dying.until_dead().await?;
    dying.transaction.rollback().await?;
    assert!(!answer(next).await?);
    assert_eq!(dying.backend.get(&dying.key).await?, None);
    Ok(())
}

async fn r2_a_handoff_behind_a_takeover_grants_nothing(server: Arc<Server>) -> Outcome {
    let mut dying = Dying::new(&server).await?;
    dying.lock_key().await?;
    let next = dying.behind(handoff(&dying)).await?;
    dying.until_dead().await?;
    let Dying { backend, key, mut transaction, .. } = dying;
    let new = lease(backend.acquire_in(&mut transaction, &key, minute()).await)?.expect("dead");
    transaction.commit().await?;
    assert!(!answer(next).await?);
    let record = backend.get(&key).await?.expect("it is held");
    assert_eq!((record.id(), record.fence()), (new.id(), new.fence()));
    Ok(())
}

/// A deferred trigger records how its transaction commits.
async fn a_handoff_is_on_disk_before_it_is_answered(server: Arc<Server>) -> Outcome {
    let (pool, _) = super::empty_schema(&server).await?;
    let backend = super::patient(pool.clone())?;
    backend.setup_schema().await?;
    execute(
        &pool,
        "CREATE TABLE commits (mode TEXT); \
         CREATE FUNCTION record_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO commits VALUES (current_setting('synchronous_commit')); \
             RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER record_commit AFTER UPDATE ON syncguard_locks \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record_commit()",
    )
    .await?;
    let (_, held) = held(&backend).await?;
    assert!(backend.handoff(&held, &fresh_id(), minute()).await?.is_some());
    let modes: Vec<String> =
        sqlx::query_scalar("SELECT mode FROM commits").fetch_all(&pool).await?;
    assert_eq!(modes, ["on"]);
    Ok(())
}

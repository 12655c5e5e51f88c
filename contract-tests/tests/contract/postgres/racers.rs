//! Many tasks that race for one key, or for one connection.

use std::sync::Arc;

use syncguard_postgres::{Acquired, Backend, Error};
use tokio::task::JoinSet;

use super::{Outcome, backend, cases, end_in, fresh_id, fresh_key, lease, minute};
use contract_tests::servers::Server;

cases![
    a1_one_of_50_racers_takes_over_an_expired_row_200_times,
    a1_one_of_50_racers_takes_over_at_stricter_isolation_levels,
    a4_racing_repeats_of_one_attempt_all_get_the_same_lease,
    a_pool_of_one_connection_serves_50_tasks,
    a_held_lock_keeps_no_connection,
];

async fn a1_one_of_50_racers_takes_over_an_expired_row_200_times(server: Arc<Server>) -> Outcome {
    takeovers(&server, "read committed", 200).await
}

async fn a1_one_of_50_racers_takes_over_at_stricter_isolation_levels(
    server: Arc<Server>,
) -> Outcome {
    takeovers(&server, "serializable", 20).await?;
    takeovers(&server, "repeatable read", 20).await
}

async fn takeovers(server: &Server, isolation: &str, rounds: usize) -> Outcome {
    let backend = backend(server, 15, |options| {
        options.options([("default_transaction_isolation", isolation)])
    });
    let backend = backend.await?;
    backend.setup_schema().await?;
    let (key, mut last) = (fresh_key(), None);
    for round in 0..rounds {
        end_in(backend.pool(), &key, 0).await?;
        let mut racers = JoinSet::new();
        for _ in 0..50 {
            let (backend, key) = (backend.clone(), key.clone());
            racers.spawn(async move { lease(backend.acquire(&key, &fresh_id(), minute()).await) });
        }
        let mut won = Vec::new();
        while let Some(racer) = racers.join_next().await {
            won.extend(racer??);
        }
        assert_eq!(won.len(), 1, "round {round}");
        let (won, stored) = (&won[0], backend.get(&key).await?.expect("it is held"));
        assert_eq!((won.id(), won.fence()), (stored.id(), stored.fence()));
        assert!(Some(won.fence()) > last, "{:?} after {last:?}", won.fence());
        last = Some(won.fence());
    }
    Ok(())
}

async fn a4_racing_repeats_of_one_attempt_all_get_the_same_lease(server: Arc<Server>) -> Outcome {
    let backend = super::service(&server).await?;
    for _ in 0..20 {
        let (key, id) = (fresh_key(), fresh_id());
        let mut repeats = JoinSet::new();
        for _ in 0..10 {
            let (backend, key, id) = (backend.clone(), key.clone(), id.clone());
            repeats.spawn(async move { lease(backend.acquire(&key, &id, minute()).await) });
        }
        let mut fences = Vec::new();
        while let Some(repeat) = repeats.join_next().await {
            fences.push(repeat??.expect("the id holds the key").fence());
        }
        fences.dedup();
        assert_eq!(fences.len(), 1, "{fences:?}");
    }
    Ok(())
}

async fn a_pool_of_one_connection_serves_50_tasks(server: Arc<Server>) -> Outcome {
    let backend = backend(&server, 1, |options| options).await?;
    backend.setup_schema().await?;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let backend = backend.clone();
        tasks.spawn(async move {
            let key = fresh_key();
            let Acquired::Granted(lease) = backend.acquire(&key, &fresh_id(), minute()).await?
            else {
                panic!("a free key was not granted");
            };
            assert!(backend.extend(&lease, minute()).await?.is_some());
            assert!(backend.release(&lease).await?);
            Ok::<_, Error>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

/// Holds five locks, and the only connection for attempts is still free.
async fn a_held_lock_keeps_no_connection(server: Arc<Server>) -> Outcome {
    let backend = backend(&server, 1, |options| options).await?;
    backend.setup_schema().await?;
    for _ in 0..5 {
        lease(backend.acquire(&fresh_key(), &fresh_id(), minute()).await)?.expect("it was free");
    }
    assert_eq!(backend.get(&fresh_key()).await?, None);
    Ok(())
}

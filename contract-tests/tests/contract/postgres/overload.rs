//! More callers than the connections can serve within the command timeout.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract_tests::servers::Server;
use syncguard_postgres::sqlx::postgres::PgPoolOptions;
use syncguard_postgres::{Backend, PostgresBackend, PostgresBackendBuilder};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connections::{forwarded, unique};
use super::faults::connected;
use super::{Outcome, PATIENCE, cases, fresh_id, fresh_key, minute};

cases![
    too_many_callers_for_the_connections_do_not_stop_each_other,
    too_many_callers_for_a_lane_do_not_stop_each_other,
];

async fn too_many_callers_for_the_connections_do_not_stop_each_other(
    server: Arc<Server>,
) -> Outcome {
    still_serves(&server, PostgresBackend::builder().without_group_commit()).await
}

async fn too_many_callers_for_a_lane_do_not_stop_each_other(server: Arc<Server>) -> Outcome {
    still_serves(&server, PostgresBackend::builder().group_commit(1, 1)).await
}

/// With 40 ms for a statement, the one connection serves 25 attempts a second. There are 100 callers,
/// and each gives up after a second. If an attempt were sent with little time left, it would get no
/// answer in time, and its connection would be closed.
async fn still_serves(server: &Server, builder: PostgresBackendBuilder) -> Outcome {
    let (forwarder, options) = forwarded(server, &unique()).await?;
    let builder = builder.max_connections(1).command_timeout(Duration::from_secs(1));
    let backend = builder.build(PgPoolOptions::new().connect_lazy_with(options))?;
    connected(&backend).await;
    forwarder.delay(Duration::from_millis(20));
    let granted = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let (backend, granted) = (backend.clone(), granted.clone());
        callers.spawn(async move {
            loop {
                match backend.acquire(&fresh_key(), &fresh_id(), minute()).await {
                    Ok(_) => drop(granted.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
            }
        });
    }
    // The first second is easy, because all have just begun.
    sleep(Duration::from_secs(2)).await;
    let (before, opened) = (granted.load(Ordering::Relaxed), forwarder.accepted());
    let served = async {
        while granted.load(Ordering::Relaxed) < before + 50 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, served).await?;
    let opened = forwarder.accepted() - opened;
    callers.shutdown().await;
    assert!(opened <= 4, "{opened} new connections for 50 attempts");
    Ok(())
}

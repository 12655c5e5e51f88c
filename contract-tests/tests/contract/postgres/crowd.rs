//! What ten thousand waiters for one key cost the server.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::{Backend, LockManager};
use tokio::time::sleep;

use super::notifications::{Fixture, WAITER_LOCKS};
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use crate::crowd::Crowd;
use contract_tests::servers::Server;

cases![w6_ten_thousand_waiters_cost_one_connection_and_one_waiter_lock];

async fn w6_ten_thousand_waiters_cost_one_connection_and_one_waiter_lock(
    server: Arc<Server>,
) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    // This trial does not test durability, and synchronous commits would take most of its time.
    let options = fixture.options().options([("synchronous_commit", "off")]);
    let pool = pool_of(2).connect_lazy_with(options.application_name(&fixture.table));
    let backend = fixture.named().build(pool.clone())?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");

    let locks = LockManager::new(backend.clone());
    let crowd = Crowd::behind(&locks, &key).await;
    fixture.until(WAITER_LOCKS, 1).await?;
    assert!(backend.release(&held).await?);
    let watch = async {
        loop {
            let (connections, waiter_locks) =
                (fixture.connections().await?, fixture.waiter_locks().await?);
            assert!(
                connections <= 2 + 1 && waiter_locks <= 1,
                "{connections} connections, {waiter_locks} waiter locks"
            );
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        served = crowd.served() => Ok(served?),
        failed = watch => failed,
    }
}

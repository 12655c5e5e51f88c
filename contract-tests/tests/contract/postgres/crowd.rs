//! What a crowd that waits for one key costs the server.

use std::sync::Arc;
use std::time::Duration;

use syncguard_postgres::{Backend, LockManager};
use tokio::time::sleep;

use super::notifications::{Place, SIGNS};
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use crate::crowd::Crowd;
use contract_tests::servers::Server;

cases![w6_ten_thousand_cost_one_connection_and_one_sign];

async fn w6_ten_thousand_cost_one_connection_and_one_sign(server: Arc<Server>) -> Outcome {
    let place = Place::new(&server).await?;
    // Nothing here is about what is on disk, which would take most of the time.
    let options = place.options().options([("synchronous_commit", "off")]);
    let pool = pool_of(2).connect_lazy_with(options.application_name(&place.table));
    let backend = place.on(pool.clone()).build()?;
    let key = fresh_key();
    let held = lease(backend.acquire(&key, &fresh_id(), minute()).await)?.expect("it was free");

    let locks = LockManager::new(backend.clone());
    let crowd = Crowd::behind(&locks, &key).await;
    place.until(SIGNS, 1).await?;
    assert!(backend.release(&held).await?);
    let looks = async {
        loop {
            let (connections, signs) = (place.connections().await?, place.signs().await?);
            assert!(connections <= 2 + 1 && signs <= 1, "{connections} and {signs}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        served = crowd.served() => Ok(served?),
        failed = looks => failed,
    }
}

//! What ten thousand waiters for one key cost the server.

use std::collections::BTreeSet;
use std::sync::Arc;

use libtest_mimic::Trial;
use syncguard_redis::{Backend, LockManager};

use super::faults::{options, spare, url};
use super::notifications::{PATIENCE, channels, connections, until};
use super::{Cases, Outcome, fresh_key, raw, take};
use crate::crowd::Crowd;
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![cases.trial("crowd::w6_ten_thousand_waiters_cost_one_connection_and_one_channel", costs)]
}

async fn costs(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().command_timeout(PATIENCE).connect(&url).await?;
    let key = fresh_key();
    let lease = take(&backend, &key).await?;

    let (locks, before) = (LockManager::new(backend.clone()), connections(&raw).await);
    let crowd = Crowd::behind(&locks, &key).await;
    let name = format!("syncguard:{}", key.as_str());
    let one = BTreeSet::from([name.clone()]);
    until("not subscribed", async || channels(&raw, "CHANNELS").await == one).await;
    let subscribers = raw.run(&["PUBSUB", "NUMSUB", &name]).await.into_array();
    assert_eq!(subscribers[1].as_i64(), Some(1));

    assert!(backend.release(&lease).await?);
    crowd.served().await?;
    assert_eq!(connections(&raw).await, before + 1, "more than one new connection");
    Ok(())
}

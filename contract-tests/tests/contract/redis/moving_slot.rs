//! A cluster slot that moves to another node, one stored name at a time.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::{Backend, ErrorCode, Lease, RedisBackend, Result};
use tokio::time::{Instant, sleep};

use super::faults::{every_operation, look_up, options};
use super::nodes::{Node, Started};
use super::notifications::{channels, notification, subscribed_waiter, until, wakes_up};
use super::{Cases, Outcome, Raw, assert_code, fresh_id, fresh_key, long, take};
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![cases.trial("moving_slot::e_a_moving_slot_hides_no_lease_and_no_release", moving_slot)]
}

/// A node of a cluster.
struct Member {
    node: Node,
    raw: Raw,
    id: String,
}

impl Member {
    async fn start(server: &Server) -> Started<Self> {
        let settings = [
            ["--cluster-enabled", "yes"],
            ["--cluster-require-full-coverage", "no"],
            // Otherwise a node that loses its last slot becomes a replica.
            ["--cluster-migration-barrier", "9"],
            ["--cluster-announce-ip", "127.0.0.1"],
        ];
        let node = Node::start(server, settings.as_flattened()).await?;
        let raw = node.raw.clone();
        // Redis 6 has no such setting, and needs none.
        let _ = raw.try_run(&["CONFIG", "SET", "cluster-allow-replica-migration", "no"]).await;
        let id = raw.text(&["CLUSTER", "MYID"]).await.unwrap();
        Ok(Self { node, raw, id })
    }

    fn port(&self) -> String {
        self.node.port.to_string()
    }

    async fn set_slot(&self, slot: &str, state: &str, node: &Self) {
        self.raw.run(&["CLUSTER", "SETSLOT", slot, state, &node.id]).await;
    }

    /// Returns true if this node serves its slots and knows that `node` serves `slot`.
    async fn knows(&self, slot: &str, node: &Self) -> bool {
        let info = self.raw.text(&["CLUSTER", "INFO"]).await.unwrap();
        let nodes = self.raw.text(&["CLUSTER", "NODES"]).await.unwrap();
        let served = nodes.lines().any(|line| line.starts_with(&node.id) && line.ends_with(slot));
        info.contains("cluster_state:ok") && served
    }
}

async fn moving_slot(server: Arc<Server>) -> Outcome {
    let (from, to) = (Member::start(&server).await?, Member::start(&server).await?);
    let slot = from.raw.number(&["CLUSTER", "KEYSLOT", "{syncguard}"]).await.to_string();
    let other = to.raw.number(&["CLUSTER", "KEYSLOT", "{other}"]).await.to_string();
    from.raw.run(&["CLUSTER", "ADDSLOTS", &slot]).await;
    to.raw.run(&["CLUSTER", "ADDSLOTS", &other]).await;
    from.raw.run(&["CLUSTER", "MEET", "127.0.0.1", &to.port()]).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !(from.knows(&other, &to).await && to.knows(&slot, &from).await) {
        assert!(Instant::now() < deadline, "the nodes did not meet");
        sleep(Duration::from_millis(50)).await;
    }
    let tagged = options().key_prefix("{syncguard}");
    let backend = tagged.connect(&format!("redis-cluster://127.0.0.1:{}", from.port())).await?;
    // Loads the scripts on the receiving node.
    let other = options().key_prefix("{other}").build(to.raw.0.clone())?;
    every_operation(&other, &fresh_key()).await?;
    let leases = [take(&backend, &fresh_key()).await?, take(&backend, &fresh_key()).await?];
    let sharded = from.raw.has_sharded_channels().await;
    let mut waiters = Vec::new();
    for lease in leases.iter().filter(|_| sharded) {
        waiters.push(subscribed_waiter(&backend, lease.key()).await);
    }

    to.set_slot(&slot, "IMPORTING", &from).await;
    from.set_slot(&slot, "MIGRATING", &to).await;
    // For one lease the index key moves first, for the other the lock itself.
    let [one, two] = leases.each_ref().map(|lease| {
        let lock = format!("{{syncguard}}:{}", lease.key().as_str());
        let index = format!("{{syncguard}}:id:{}", lease.id().as_str());
        let counter = format!("{{syncguard}}:fence:{lock}");
        [lock, index, counter]
    });
    for name in [&one[1], &two[0], &one[0], &two[1], &one[2], &two[2]] {
        let moved = from.raw.text(&["MIGRATE", "127.0.0.1", &to.port(), name, "0", "5000"]).await;
        assert_eq!(moved.as_deref(), Some("OK"));
        hides_nothing_when_asked(&to.raw, &leases).await;
        hides_nothing(&backend, &leases).await?;
    }
    to.set_slot(&slot, "NODE", &to).await;
    from.set_slot(&slot, "NODE", &to).await;

    let mut notified = Vec::new();
    if sharded {
        // The subscriptions follow the slot.
        let followed = async || channels(&to.raw, "SHARDCHANNELS").await.len() == waiters.len();
        until("not all subscriptions followed the slot", followed).await;
        notified.extend(leases.iter().map(|lease| notification(&backend, lease.key())));
    }
    for lease in leases {
        assert_eq!(look_up(&backend, lease.key()).await?.unwrap().id(), lease.id());
        assert_eq!(backend.find(lease.id()).await?.unwrap().key(), lease.key());
        assert!(backend.extend_by_id(lease.id(), long()).await?.is_some());
        assert!(backend.release_by_id(lease.id()).await?);
        assert!(take(&backend, lease.key()).await?.fence() > lease.fence());
    }
    for waiter in notified {
        wakes_up(waiter, "by a release").await;
    }
    Ok(())
}

/// Checks that no operation reports a live lease as missing. While the names of a lock are on
/// different nodes, an operation that needs several of them may fail.
async fn hides_nothing(backend: &RedisBackend, leases: &[Lease]) -> Outcome {
    for lease in leases {
        let (key, id) = (lease.key(), lease.id());
        seen_or_unavailable(backend.get(key).await);
        seen_or_unavailable(backend.extend(lease, long()).await);
        assert_code(take(backend, key).await, ErrorCode::ServiceUnavailable);
        let unavailable = ErrorCode::ServiceUnavailable;
        assert_code(backend.find(id).await, unavailable);
        assert_code(backend.extend_by_id(id, long()).await, unavailable);
        assert_code(backend.release_by_id(id).await, unavailable);
        assert_code(backend.handoff(lease, &fresh_id(), long()).await, unavailable);
    }
    Ok(())
}

#[track_caller]
fn seen_or_unavailable<T: Debug>(outcome: Result<Option<T>>) {
    match outcome {
        Ok(seen) => assert!(seen.is_some(), "a live lease was reported as missing"),
        failed => assert_code(failed, ErrorCode::ServiceUnavailable),
    }
}

/// Checks the same on the receiving node, for a client that the old node redirected with ASK.
async fn hides_nothing_when_asked(raw: &Raw, leases: &[Lease]) {
    let find = include_str!("../../../../crates/syncguard-redis/tests/scripts/find.lua");
    let extend = include_str!("../../../../crates/syncguard-redis/tests/scripts/extend_by_id.lua");
    let release =
        include_str!("../../../../crates/syncguard-redis/tests/scripts/release_by_id.lua");
    for id in leases.iter().map(|lease| lease.id().as_str()) {
        let index = format!("{{syncguard}}:id:{id}");
        for (script, argument) in [(find, ""), (extend, "30000"), (release, "")] {
            raw.run(&["ASKING"]).await;
            let words = ["EVAL", script, "2", &index, "{syncguard}", id, argument];
            let refusal = raw.try_run(&words).await.unwrap_err();
            assert!(refusal.details().starts_with("TRYAGAIN"), "{refusal}");
        }
    }
}

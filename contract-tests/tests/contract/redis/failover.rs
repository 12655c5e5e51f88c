//! Real failovers: Sentinel and Cluster, with a master that was killed and one that hangs.
//!
//! One backend with default settings is called every 50 ms while a lease of 30 s is kept alive.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::fred::prelude::Value;
use syncguard_redis::{Backend, LockManager, RedisBackend};
use testcontainers::{ContainerAsync, GenericImage};
use tokio::time::{Instant, sleep};

use super::nodes::{Node, Started};
use super::notifications::until;
use super::{Cases, Outcome, Raw, fresh_id, fresh_key, raw, ttl};
use contract_tests::ports::free_port;
use contract_tests::servers::{self, Server};

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("failover::f2_sentinel_promotes_a_replica", sentinel),
        cases.trial("failover::f2_a_cluster_promotes_a_replica", cluster),
    ]
}

/// How much longer a hung master may cost than a killed one: a command timeout by default, and the
/// time by which two elections differ on a busy machine.
const COST_OF_HANGING: Duration = Duration::from_secs(3 + 2);

/// How a master goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// As `kill -9`: its connections are closed.
    Killed,
    /// As `kill -STOP`: its connections stay open and are silent.
    Hung,
}

async fn fail(node: &Node, fault: Fault) -> Outcome {
    match fault {
        Fault::Killed => node.container.stop_with_timeout(Some(0)).await?,
        Fault::Hung => servers::pause(&node.container).await?,
    }
    Ok(())
}

async fn sentinel(server: Arc<Server>) -> Outcome {
    let mut times = Vec::new();
    for fault in [Fault::Killed, Fault::Hung] {
        let master = Node::start(&server, &[]).await?;
        let port = master.port.to_string();
        let replica = Node::start(&server, &["--replicaof", "127.0.0.1", &port]).await?;
        until("the replica is not in sync", async || replica.is_replica_in_sync().await).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(start_sentinel(&server, master.port).await?);
        }
        let known = async |raw: &Raw| {
            let state = raw.text(&["INFO", "sentinel"]).await.unwrap();
            state.contains("slaves=1,sentinels=3")
        };
        for (_, raw, _) in &sentinels {
            until("the sentinels do not know each other", async || known(raw).await).await;
        }
        let nodes: Vec<_> =
            sentinels.iter().map(|(port, ..)| format!("node=127.0.0.1:{port}")).collect();
        let (first, nodes) = (sentinels[0].0, nodes[1..].join("&"));
        let url = format!("redis-sentinel://127.0.0.1:{first}?sentinelServiceName=main&{nodes}");
        let backend = RedisBackend::connect(&url).await?;
        times.push(recovers(backend, &master, &replica, fault).await?);
    }
    assert_hanging_is_cheap(&times);
    Ok(())
}

async fn start_sentinel(
    server: &Server,
    master: u16,
) -> Started<(u16, Raw, ContainerAsync<GenericImage>)> {
    let port = free_port();
    let text = format!(
        "port {port}\nprotected-mode no\n\
         sentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 2000\n\
         sentinel failover-timeout main 5000\n"
    );
    let command = ["redis-server", "/data/sentinel.conf", "--sentinel"];
    let file = ("/data/sentinel.conf", text);
    let container = server.on_host(&command, Some(file), "+monitor master").await?;
    let raw = raw(&format!("redis://127.0.0.1:{port}")).await;
    Ok((port, raw, container))
}

async fn cluster(server: Arc<Server>) -> Outcome {
    let settings = [
        ["--cluster-enabled", "yes"],
        ["--cluster-node-timeout", "2000"],
        ["--cluster-require-full-coverage", "no"],
        ["--cluster-announce-ip", "127.0.0.1"],
    ];
    let settings = settings.as_flattened();
    let mut times = Vec::new();
    for fault in [Fault::Killed, Fault::Hung] {
        // Three masters, because a failover needs the votes of most of them.
        let mut nodes = Vec::new();
        for _ in 0..4 {
            nodes.push(Node::start(&server, settings).await?);
        }
        let [master, second, third, replica] = &nodes[..] else { panic!() };
        for (node, tag) in [(master, "{syncguard}"), (second, "{a}"), (third, "{b}")] {
            let slot = node.raw.number(&["CLUSTER", "KEYSLOT", tag]).await.to_string();
            node.raw.run(&["CLUSTER", "ADDSLOTS", &slot]).await;
        }
        for node in &nodes[1..] {
            master.raw.run(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]).await;
        }
        for node in &nodes {
            let met = async || {
                let known = node.raw.text(&["CLUSTER", "NODES"]).await.unwrap();
                known.lines().count() == nodes.len() && !known.contains("handshake")
            };
            until("the nodes did not meet", met).await;
        }
        let id = master.raw.text(&["CLUSTER", "MYID"]).await.unwrap();
        replica.raw.run(&["CLUSTER", "REPLICATE", &id]).await;
        until("the replica is not in sync", async || replica.is_replica_in_sync().await).await;
        for node in &nodes {
            let ready = async || {
                let slots = node.raw.run(&["CLUSTER", "SLOTS"]).await.into_array();
                let slots: Vec<_> = slots.into_iter().map(Value::into_array).collect();
                let info = node.raw.text(&["CLUSTER", "INFO"]).await.unwrap();
                // First and last slot, the master, and its replica.
                let replicas = slots.iter().filter(|slot| slot.len() == 4).count();
                slots.len() == 3 && replicas == 1 && info.contains("cluster_state:ok")
            };
            until("the cluster is not ready", ready).await;
        }
        let url = format!(
            "redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}&node=127.0.0.1:{}",
            master.port, second.port, third.port
        );
        let backend = RedisBackend::builder().key_prefix("{syncguard}").connect(&url).await?;
        times.push(recovers(backend, master, replica, fault).await?);
    }
    assert_hanging_is_cheap(&times);
    Ok(())
}

/// Checks that the backend works again after a failover and that the lease is kept. Returns how long
/// that took, from the fault.
async fn recovers(
    backend: RedisBackend,
    master: &Node,
    replica: &Node,
    fault: Fault,
) -> Started<Duration> {
    let locks = LockManager::new(backend.clone());
    let kept = locks.lock(fresh_key()).ttl(Duration::from_secs(30)).keep_alive().acquire().await?;
    let works = async || {
        let (key, id) = (fresh_key(), fresh_id());
        backend.acquire(&key, &id, ttl(Duration::from_secs(30))).await?;
        backend.release_by_id(&id).await
    };
    for _ in 0..10 {
        works().await?;
        sleep(Duration::from_millis(50)).await;
    }

    fail(master, fault).await?;
    let start = Instant::now();
    let promoted = until("the replica was not promoted", async || replica.is_master().await);
    let served = async {
        // Until then, the old master may still answer what was sent just before.
        while start.elapsed() < Duration::from_secs(1) {
            let _ = works().await;
            sleep(Duration::from_millis(50)).await;
        }
        loop {
            match works().await {
                Ok(_) => return start.elapsed(),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(40), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ((), served) = tokio::join!(promoted, served);
    assert!(!kept.is_lost());
    // A keep-alive renews every 10 s, and it does so on the new master.
    let before = kept.expires_at();
    until("the lease was not renewed", async || kept.expires_at() > before).await;
    assert!(!kept.is_lost());
    assert!(kept.release().await?);
    Ok(served)
}

fn assert_hanging_is_cheap(times: &[Duration]) {
    let [killed, hung] = times else { panic!() };
    assert!(*hung <= *killed + COST_OF_HANGING, "killed: {killed:?}, hung: {hung:?}");
}

//! Faults: each maps to its error code, and none grants or loses a lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::prelude::{Builder, Config, ReconnectPolicy};
use syncguard_redis::{
    Acquired, Backend, ErrorCode, Key, Lease, LockRecord, Publication, RedisBackend,
    RedisBackendBuilder, Result,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::nodes::{Node, Started};
use super::{Cases, Outcome, Raw, assert_code, fresh_id, fresh_key, granted, long, raw, take};
use contract_tests::ports::free_port;
use contract_tests::servers::{Server, Spare};

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("faults::each_operation_is_one_round_trip", round_trips),
        cases.trial("faults::scripts_are_sent_again_after_a_flush", script_flush),
        cases.trial("faults::a3_fences_and_leases_survive_a_restart", restart),
        cases.trial("faults::e_a_refused_connection_is_unavailable", nobody_listens),
        cases.trial("faults::e_a_server_that_hangs_is_a_timeout", hangs),
        cases.trial("faults::e_wrong_credentials_are_auth_failed", password),
        cases.trial("faults::e_a_read_only_replica_is_unavailable", read_only),
        cases.trial("faults::e_out_of_memory_is_rate_limited", out_of_memory),
        cases.trial("faults::a1_a_lost_reply_causes_no_second_grant", lost_reply),
        cases.trial("faults::a_cluster_works_with_a_hash_tag_only", cluster),
    ]
}

/// The command timeout. It is long enough for a busy machine, and short enough for the trials that
/// wait for it on a server that hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(2);

pub(super) fn options() -> RedisBackendBuilder {
    RedisBackend::builder().command_timeout(LIMIT)
}

/// Starts a server for this trial alone, with these settings.
pub(super) async fn spare(server: &Server, settings: &[&str]) -> Result<Spare, String> {
    let command = ["redis-server", "--save", "", "--protected-mode", "no"];
    server.spare(&[&command, settings].concat()).await
}

pub(super) async fn url(spare: &Spare) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    Ok(format!("redis://127.0.0.1:{}", spare.port))
}

/// Runs every operation once, and a second attempt to acquire.
pub(super) async fn every_operation(backend: &RedisBackend, key: &Key) -> Outcome {
    let lease = take(backend, key).await?;
    assert!(matches!(backend.acquire(key, &fresh_id(), long()).await?, Acquired::Held { .. }));
    backend.extend(&lease, long()).await?.unwrap();
    backend.extend_by_id(lease.id(), long()).await?.unwrap();
    backend.get(key).await?.unwrap();
    backend.find(lease.id()).await?.unwrap();
    let next = backend.handoff(&lease, &fresh_id(), long()).await?.unwrap();
    let publication = Publication::new(next.fence(), "node", "value")?;
    assert!(backend.publish(&next, &publication, long()).await?);
    assert!(backend.published(key).await?.is_some());
    backend.withdraw(&next).await?;
    assert!(backend.release(&next).await?);
    assert!(!backend.release_by_id(next.id()).await?);
    Ok(())
}

const OPERATIONS: u64 = 12;
const SCRIPTS: u64 = 11;

async fn round_trips(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().connect(&url).await?;
    every_operation(&backend, &fresh_key()).await?;
    raw.run(&["CONFIG", "RESETSTAT"]).await;
    every_operation(&backend, &fresh_key()).await?;
    assert_eq!(raw.calls("evalsha").await, OPERATIONS);
    assert_eq!(raw.calls("eval").await, 0);
    // Only one release ended a lease, and a handoff frees no key.
    assert_eq!(raw.calls("publish").await, 1);
    // Clients sent only the operations and these queries.
    let stats = raw.text(&["INFO", "commandstats"]).await.unwrap();
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let name = line.split(':').next().unwrap();
        let inside =
            ["time", "get", "set", "pexpire", "incr", "del", "hset", "hmget", "publish", "evalsha"];
        assert!(
            inside.contains(&name) || ["info", "config", "config|resetstat"].contains(&name),
            "{line}"
        );
    }
    Ok(())
}

async fn script_flush(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().connect(&url).await?;
    every_operation(&backend, &fresh_key()).await?;
    raw.run(&["SCRIPT", "FLUSH"]).await;
    raw.run(&["CONFIG", "RESETSTAT"]).await;
    every_operation(&backend, &fresh_key()).await?;
    assert_eq!(raw.calls("evalsha").await, OPERATIONS);
    assert_eq!(raw.calls("eval").await, SCRIPTS);

    // The state after a restart: no scripts and no connections.
    raw.run(&["SCRIPT", "FLUSH"]).await;
    raw.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let key = fresh_key();
    assert!(look_up(&backend, &key).await?.is_none());
    every_operation(&backend, &key).await
}

async fn restart(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--appendonly", "yes", "--appendfsync", "always"]).await?;
    let address = url(&spare).await?;
    raw(&address).await;
    let backend = options().connect(&address).await?;
    let held = take(&backend, &fresh_key()).await?;
    let released = take(&backend, &fresh_key()).await?;
    assert!(backend.release(&released).await?);

    spare.container.stop_with_timeout(Some(0)).await?;
    let key = fresh_key();
    assert_code(take(&backend, &key).await, ErrorCode::ServiceUnavailable);
    assert_code(backend.extend(&held, long()).await, ErrorCode::ServiceUnavailable);
    assert_code(backend.release(&held).await, ErrorCode::ServiceUnavailable);

    spare.container.start().await?;
    let address = url(&spare).await?;
    raw(&address).await;
    let backend = options().connect(&address).await?;
    assert!(backend.get(&key).await?.is_none());
    assert_eq!(backend.get(held.key()).await?.unwrap().id(), held.id());
    assert!(take(&backend, released.key()).await?.fence() > released.fence());
    assert!(backend.release(&held).await?);
    assert!(take(&backend, held.key()).await?.fence() > held.fence());
    Ok(())
}

async fn nobody_listens(_: Arc<Server>) -> Outcome {
    // A free port, on which no server listens.
    let port = free_port();
    let outcome = options().connect(&format!("redis://127.0.0.1:{port}")).await;
    assert_code(outcome, ErrorCode::ServiceUnavailable);
    Ok(())
}

async fn hangs(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    raw(&url).await;
    let backend = options().connect(&url).await?;
    let held = take(&backend, &fresh_key()).await?;
    let (key, id) = (fresh_key(), fresh_id());

    spare.pause().await?;
    let start = Instant::now();
    let (acquired, extended, found_by_id, found) = tokio::join!(
        backend.acquire(&key, &id, long()),
        backend.extend(&held, long()),
        backend.find(held.id()),
        backend.get(held.key()),
    );
    assert_code(acquired, ErrorCode::NetworkTimeout);
    assert_code(extended, ErrorCode::NetworkTimeout);
    assert_code(found_by_id, ErrorCode::NetworkTimeout);
    assert_code(found, ErrorCode::NetworkTimeout);
    assert_code(options().connect(&url).await, ErrorCode::NetworkTimeout);
    assert!(start.elapsed() < LIMIT * 5, "{:?}", start.elapsed());
    spare.container.unpause().await?;

    // The acquire that timed out may still have run, but only for its own id.
    raw(&url).await;
    let backend = options().connect(&url).await?;
    assert!(backend.get(held.key()).await?.is_some());
    let lease = granted(backend.acquire(&key, &id, long()).await?);
    assert_eq!(lease.fence().get(), 1);
    assert!(matches!(backend.acquire(&key, &fresh_id(), long()).await?, Acquired::Held { .. }));
    Ok(())
}

async fn password(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--requirepass", "secret"]).await?;
    let port = spare.port;
    let right = format!("redis://:secret@127.0.0.1:{port}");
    raw(&right).await;
    for user in ["", ":wrong@", "nobody:secret@"] {
        let outcome = options().connect(&format!("redis://{user}127.0.0.1:{port}")).await;
        assert_code(outcome, ErrorCode::AuthFailed);
    }
    let backend = options().connect(&right).await?;
    let lease = take(&backend, &fresh_key()).await?;

    // This user may read, but not run scripts.
    raw(&right).await.run(&["ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get", "+info"]).await;
    let reader = options().connect(&format!("redis://reader:pw@127.0.0.1:{port}")).await;
    if let Ok(reader) = reader {
        assert_code(take(&reader, &fresh_key()).await, ErrorCode::AuthFailed);
        assert_code(reader.release(&lease).await, ErrorCode::AuthFailed);
    } else {
        assert_code(reader, ErrorCode::AuthFailed);
    }
    assert!(backend.release(&lease).await?);

    // This user may run scripts and all their commands except publish.
    let admin = raw(&right).await;
    let commands = "+evalsha +eval +get +set +del +incr +decr +pexpire +time +hset +hmget";
    let words: Vec<_> = commands.split(' ').collect();
    let user = ["ACL", "SETUSER", "least", "on", ">pw", "~syncguard:*"];
    admin.run(&[&user[..], &words].concat()).await;
    let least = options().connect(&format!("redis://least:pw@127.0.0.1:{port}")).await?;
    every_operation(&least, &fresh_key()).await?;

    // This user may run scripts, but not all their commands.
    admin.run(&["ACL", "SETUSER", "partial", "on", ">pw", "~*", "+@all", "-incr"]).await;
    let partial = options().connect(&format!("redis://partial:pw@127.0.0.1:{port}")).await?;
    let keys = admin.number(&["DBSIZE"]).await;
    assert_code(take(&partial, &fresh_key()).await, ErrorCode::AuthFailed);
    assert_eq!(admin.number(&["DBSIZE"]).await, keys);
    Ok(())
}

/// Checks that acquire and handoff fail with this code and leave nothing behind.
async fn refuses_grants(
    backend: &RedisBackend,
    raw: &Raw,
    held: &Lease,
    code: ErrorCode,
) -> Outcome {
    let key = fresh_key();
    let keys = raw.number(&["DBSIZE"]).await;
    assert_code(take(backend, &key).await, code);
    assert_code(backend.handoff(held, &fresh_id(), long()).await, code);
    assert!(backend.get(&key).await?.is_none());
    assert_eq!(backend.get(held.key()).await?.unwrap().id(), held.id());
    assert_eq!(raw.number(&["DBSIZE"]).await, keys);
    Ok(())
}

async fn read_only(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().connect(&url).await?;
    let held = take(&backend, &fresh_key()).await?;
    // The master does not exist, so the replica keeps its data.
    raw.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let code = ErrorCode::ServiceUnavailable;
    refuses_grants(&backend, &raw, &held, code).await?;
    assert_code(backend.extend(&held, long()).await, code);
    assert_code(backend.extend_by_id(held.id(), long()).await, code);
    assert_code(backend.release(&held).await, code);
    assert_code(backend.release_by_id(held.id()).await, code);
    raw.run(&["REPLICAOF", "NO", "ONE"]).await;
    assert!(backend.release(&held).await?);
    Ok(())
}

async fn out_of_memory(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--maxmemory-policy", "noeviction"]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().connect(&url).await?;
    let held = take(&backend, &fresh_key()).await?;
    // The server itself uses more than one byte, so it refuses every write that takes memory.
    raw.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    refuses_grants(&backend, &raw, &held, ErrorCode::RateLimited).await?;
    // A release frees memory, so it goes through.
    assert!(backend.release(&held).await?);
    raw.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(take(&backend, held.key()).await?.fence().get(), held.fence().get() + 1);
    Ok(())
}

/// A proxy to a server. If `swallow` is set, it drops the next answer and closes that connection.
async fn proxy(port: u16, swallow: Arc<AtomicBool>) -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::task::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            let swallow = swallow.clone();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::task::spawn(async move {
                let answers = async {
                    let mut buffer = vec![0; 65_536];
                    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                        if swallow.swap(false, Ordering::SeqCst) {
                            return;
                        }
                        if to_client.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = answers => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    Ok(address.port())
}

async fn lost_reply(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let port = spare.port;
    let raw = raw(&format!("redis://127.0.0.1:{port}")).await;
    let swallow = Arc::new(AtomicBool::new(false));
    let url = format!("redis://127.0.0.1:{}", proxy(port, swallow.clone()).await?);
    let ours = options().connect(&url).await?;
    // By default, the fred client of a caller would send each command up to three times.
    let mut builder = Builder::from_config(Config::from_url(&url)?);
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let client = builder.build()?;
    client.init().await?;
    for backend in [ours, options().build(client)?] {
        loses_replies(&backend, &raw, &swallow).await?;
    }
    Ok(())
}

async fn loses_replies(backend: &RedisBackend, raw: &Raw, swallow: &AtomicBool) -> Outcome {
    every_operation(backend, &fresh_key()).await?;
    raw.run(&["CONFIG", "RESETSTAT"]).await;

    let (key, id) = (fresh_key(), fresh_id());
    swallow.store(true, Ordering::SeqCst);
    let lost = backend.acquire(&key, &id, long()).await;
    assert_code(lost, ErrorCode::ServiceUnavailable);
    assert!(!swallow.load(Ordering::SeqCst));
    assert_eq!(raw.calls("evalsha").await, 1);

    // The server granted the key to that id, and to no other.
    assert_eq!(look_up(backend, &key).await?.unwrap().id(), &id);
    assert!(matches!(backend.acquire(&key, &fresh_id(), long()).await?, Acquired::Held { .. }));
    let lease = granted(backend.acquire(&key, &id, long()).await?);
    assert_eq!(lease.fence().get(), 1);

    swallow.store(true, Ordering::SeqCst);
    assert_code(backend.release(&lease).await, ErrorCode::ServiceUnavailable);
    assert!(look_up(backend, &key).await?.is_none());
    assert!(!backend.release(&lease).await?);
    Ok(())
}

/// Looks a key up as soon as the connection is back.
pub(super) async fn look_up(backend: &RedisBackend, key: &Key) -> Result<Option<LockRecord>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match backend.get(key).await {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Starts a cluster of one node, on this port. Clients are sent to the other one.
///
/// It serves only the slot of the locks, so a command that is routed by another key fails.
pub(super) async fn one_slot_cluster(server: &Server, port: u16, announced: u16) -> Started<Node> {
    let announced = announced.to_string();
    let settings = [
        ["--cluster-enabled", "yes"],
        ["--cluster-require-full-coverage", "no"],
        ["--cluster-announce-ip", "127.0.0.1"],
        ["--cluster-announce-port", &announced],
    ];
    let node = Node::start_at(server, port, settings.as_flattened()).await?;
    let slot = node.raw.number(&["CLUSTER", "KEYSLOT", "{syncguard}"]).await;
    node.raw.run(&["CLUSTER", "ADDSLOTS", &slot.to_string()]).await;
    while !node.raw.text(&["CLUSTER", "INFO"]).await.unwrap().contains("cluster_state:ok") {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(node)
}

async fn cluster(server: Arc<Server>) -> Outcome {
    let swallow = Arc::new(AtomicBool::new(false));
    let behind = free_port();
    let port = proxy(behind, swallow.clone()).await?;
    let node = one_slot_cluster(&server, behind, port).await?;
    let raw = &node.raw;
    let slot = raw.number(&["CLUSTER", "KEYSLOT", "{syncguard}"]).await;
    let url = format!("redis-cluster://127.0.0.1:{port}");
    assert_code(options().connect(&url).await, ErrorCode::InvalidArgument);
    let backend = options().key_prefix("{syncguard}").connect(&url).await?;
    for _ in 0..20 {
        every_operation(&backend, &fresh_key()).await?;
    }
    let key = Key::new("with{another}tag").unwrap();
    every_operation(&backend, &key).await?;
    loses_replies(&backend, raw, &swallow).await?;
    // The cluster now serves all slots, but this client does not know that it is a cluster.
    let others: Vec<_> =
        (0..16_384).filter(|other| *other != slot).map(|n| n.to_string()).collect();
    let words: Vec<_> = others.iter().map(String::as_str).collect();
    raw.run(&[&["CLUSTER", "ADDSLOTS"], &words[..]].concat()).await;
    let backend = options().connect(&format!("redis://127.0.0.1:{port}")).await?;
    assert_code(take(&backend, &fresh_key()).await, ErrorCode::InvalidArgument);
    Ok(())
}

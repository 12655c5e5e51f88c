//! Notifications wake waiters after a release, and waiting still works without them.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_redis::fred::interfaces::ClientLike;
use syncguard_redis::fred::prelude::{Builder, Config};
use syncguard_redis::{Backend, Backoff, Key, LockManager, RedisBackend};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Sender;
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

use super::faults::{one_slot_cluster, options, spare, url};
use super::{Cases, Outcome, Raw, fresh_key, raw, take};
use crate::log::{logging, warning_of_early_ends};
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

pub(super) fn trials(cases: &Cases) -> Vec<Trial> {
    vec![
        cases.trial("notifications::w_a_release_by_another_client_wakes_a_waiter", wakes),
        cases.trial("notifications::w_only_keys_with_waiters_are_subscribed", subscribed),
        cases.trial("notifications::w_a_reconnect_wakes_all_waiters", lost),
        cases.trial("notifications::w_a_silent_connection_is_replaced", silent),
        cases.trial("notifications::w_a_release_without_permission_to_publish_succeeds", mute),
        cases.trial("notifications::w_a_waiter_without_permission_to_subscribe_is_served", deaf),
        cases.trial("notifications::w_the_documented_permissions_suffice", least),
        cases.trial("notifications::w_a_refusal_is_logged_once_without_the_key", logged),
        cases.trial("notifications::w_connections_that_end_early_are_one_warning", cut_early),
        cases.trial("notifications::w_without_notifications_nothing_is_sent", off),
        cases.trial("notifications::w_a_pool_of_the_caller_has_one_subscriber", pool),
        cases.trial("notifications::w_another_runtime_takes_over", another_runtime),
        cases.trial("notifications::w_a_cluster_uses_sharded_channels", cluster),
    ]
}

/// How long a trial waits for something that must happen, on a busy machine as well.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a trial waits to see that something does not happen. If this is too short, the trial
/// passes without proof, but it never fails without cause.
const A_MOMENT: Duration = Duration::from_millis(100);

pub(super) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns how many connections have a subscription.
async fn subscribers(raw: &Raw) -> usize {
    raw.text(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.unwrap().lines().count()
}

/// Returns the subscribed channels. `kind` is `CHANNELS`, or `SHARDCHANNELS` in a cluster.
pub(super) async fn channels(raw: &Raw, kind: &str) -> BTreeSet<String> {
    let channels = raw.run(&["PUBSUB", kind]).await.into_array();
    channels.into_iter().map(|channel| channel.as_string().unwrap()).collect()
}

pub(super) type Notification = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) fn notification(backend: &RedisBackend, key: &Key) -> Notification {
    Box::pin(backend.notified(key))
}

pub(super) async fn wakes_up(waiting: Notification, when: &str) {
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "not woken {when}");
}

/// Subscribes to the key, and returns a waiter that keeps the subscription while it lives.
pub(super) async fn subscribed_waiter(backend: &RedisBackend, key: &Key) -> Notification {
    let (subscription, first) = (notification(backend, key), notification(backend, key));
    wakes_up(first, "when the subscription began").await;
    subscription
}

/// Checks that a release through `one` wakes a waiter of `two`, and that nothing else does.
async fn assert_notified(one: &RedisBackend, two: &RedisBackend, key: &Key) -> Outcome {
    for by_id in [false, true] {
        let lease = take(one, key).await?;
        let mut notified = notification(two, key);
        assert!(timeout(A_MOMENT, &mut notified).await.is_err(), "woken without a release");
        assert!(match by_id {
            false => one.release(&lease).await?,
            true => one.release_by_id(lease.id()).await?,
        });
        wakes_up(notified, "by the release").await;
    }
    Ok(())
}

async fn wakes(server: Arc<Server>) -> Outcome {
    let connect = async |url: String| RedisBackend::connect(&url).await;
    let (one, two) = (server.client(&connect).await?, server.client(&connect).await?);
    assert!(one.capabilities().receives_notifications());
    let key = fresh_key();
    let _subscription = subscribed_waiter(&two, &key).await;
    assert_notified(&one, &two, &key).await?;
    // A key whose storage name is too long, so it is hashed.
    let key = Key::new(&format!("{}{}", fresh_key().as_str(), "k".repeat(450))).unwrap();
    let _subscription = subscribed_waiter(&two, &key).await;
    assert_notified(&one, &two, &key).await
}

async fn subscribed(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let backend = options().connect(&url).await?;
    let keys: Vec<_> = (0..20).map(|_| fresh_key()).collect();
    take(&backend, &keys[0]).await?;
    assert_eq!(subscribers(&raw).await, 0, "no waiter, but a subscriber");

    let names = |keys: &[Key]| -> BTreeSet<_> {
        keys.iter().map(|key| format!("syncguard:{}", key.as_str())).collect()
    };
    let waiters = |keys: &[Key]| -> Vec<_> {
        keys.iter().map(|key| notification(&backend.clone(), key)).collect()
    };
    let (ten, other_ten) = (waiters(&keys[..10]), waiters(&keys[10..]));
    until("not all are subscribed", async || channels(&raw, "CHANNELS").await == names(&keys))
        .await;
    assert_eq!(subscribers(&raw).await, 1);
    drop(other_ten);
    until("unsubscribing left other than ten", async || {
        channels(&raw, "CHANNELS").await == names(&keys[..10])
    })
    .await;
    let again = waiters(&keys[15..]);
    until("not subscribed again", async || channels(&raw, "CHANNELS").await.len() == 15).await;
    assert_eq!(subscribers(&raw).await, 1);
    drop((ten, again));
    until("still subscribed", async || channels(&raw, "CHANNELS").await.is_empty()).await;

    // Dropping the last clone of the backend closes the connection.
    let waiting = waiters(&keys[..1]);
    until("not subscribed", async || subscribers(&raw).await == 1).await;
    let last = backend.clone();
    drop(backend);
    assert_eq!(subscribers(&raw).await, 1);
    drop(last);
    until("the subscriber is still connected", async || subscribers(&raw).await == 0).await;
    drop(waiting);
    Ok(())
}

async fn lost(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let raw = raw(&url).await;
    let (one, two) = (options().connect(&url).await?, options().connect(&url).await?);
    let key = fresh_key();
    let _subscription = subscribed_waiter(&two, &key).await;
    for _ in 0..3 {
        let mut notified = notification(&two, &key);
        assert!(timeout(A_MOMENT, &mut notified).await.is_err(), "woken without a release");
        assert_eq!(raw.number(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, 1);
        wakes_up(notified, "after the reconnect").await;
        assert_notified(&one, &two, &key).await?;
    }
    assert_eq!(subscribers(&raw).await, 1);
    Ok(())
}

/// A proxy to a server. A message on `silence` makes the open connections go silent without closing
/// them.
async fn proxy(port: u16, silence: Sender<()>) -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::task::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut silenced = silence.subscribe();
            tokio::task::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::select! {
                    ended = copy_bidirectional(&mut client, &mut server) => ended.map(drop),
                    _ = silenced.recv() => pending().await,
                }
            });
        }
    });
    Ok(address.port())
}

async fn silent(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    raw(&spare.url).await;
    let silence = Sender::new(1);
    let port = proxy(spare.port, silence.clone()).await?;
    let one = options().connect(&spare.url).await?;
    let two = options().connect(&format!("redis://127.0.0.1:{port}")).await?;
    let key = fresh_key();
    let _subscription = subscribed_waiter(&two, &key).await;
    assert_notified(&one, &two, &key).await?;
    let notified = notification(&two, &key);
    silence.send(())?;
    wakes_up(notified, "after the reconnect").await;
    assert_notified(&one, &two, &key).await
}

/// Creates a user with all permissions that locks need, changed by `rules`.
async fn user(raw: &Raw, name: &str, rules: &[&str]) {
    let all = ["ACL", "SETUSER", name, "on", ">pw", "~syncguard:*"];
    // Redis 6 allows all channels by default.
    let all = [&all[..], &["resetchannels", "&syncguard:*", "+@all"]].concat();
    raw.run(&[&all[..], rules].concat()).await;
}

async fn mute(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let two = options().connect(&spare.url).await?;
    user(&raw, "no-channel", &["resetchannels"]).await;
    user(&raw, "no-command", &["-publish"]).await;
    for name in ["no-channel", "no-command"] {
        let one = options().connect(&format!("redis://{name}:pw@127.0.0.1:{}", spare.port)).await?;
        let key = fresh_key();
        let _subscription = subscribed_waiter(&two, &key).await;
        let (lease, mut notified) = (take(&one, &key).await?, notification(&two, &key));
        let locks = LockManager::new(two.clone());
        let waiting = locks.lock(&key).wait(PATIENCE).max_retries(1_000);
        let waiting = waiting.backoff(Backoff::fixed(Duration::from_millis(50)));
        let (guard, released) = tokio::join!(waiting.acquire(), async {
            sleep(A_MOMENT).await;
            one.release(&lease).await
        });
        assert!(released?);
        let guard = guard?;
        assert!(guard.fence() > lease.fence());
        assert!(
            timeout(A_MOMENT, &mut notified).await.is_err(),
            "woken, but the releaser may not publish"
        );
        assert!(one.release_by_id(guard.id()).await?);
        assert!(
            timeout(A_MOMENT, &mut notified).await.is_err(),
            "woken, but the releaser may not publish"
        );
        assert!(!guard.release().await?);
    }
    Ok(())
}

/// Returns how many connections the server has accepted.
pub(super) async fn connections(raw: &Raw) -> u64 {
    let stats = raw.text(&["INFO", "stats"]).await.unwrap();
    let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().parse().unwrap()
}

async fn deaf(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    user(&raw, "no-channel", &["resetchannels"]).await;
    user(&raw, "no-command", &["-subscribe"]).await;
    user(&raw, "no-ping", &["-ping"]).await;
    for name in ["no-channel", "no-command", "no-ping"] {
        let two = options().connect(&format!("redis://{name}:pw@127.0.0.1:{}", spare.port)).await;
        // fred itself pings a server that has no password, so a user without ping cannot connect.
        let Ok(two) = two else { continue };
        let (key, before) = (fresh_key(), connections(&raw).await);
        let lease = take(&two, &key).await?;
        let mut notified = notification(&two, &key);
        let locks = LockManager::new(two.clone());
        let waiting = locks.lock(&key).wait(PATIENCE).max_retries(1_000);
        let waiting = waiting.backoff(Backoff::fixed(Duration::from_millis(50)));
        let (guard, released) = tokio::join!(waiting.acquire(), async {
            assert!(
                timeout(Duration::from_secs(1), &mut notified).await.is_err(),
                "woken, but it may not subscribe"
            );
            two.release(&lease).await
        });
        assert!(released?);
        assert!(guard?.release().await?);
        // It tried again, but not in a tight loop.
        let tried = connections(&raw).await - before;
        assert!((1..10).contains(&tried), "{tried} connections");
        // A refused PING may follow a SUBSCRIBE that was not refused.
        until("still subscribed", async || subscribers(&raw).await == 0).await;
    }
    Ok(())
}

async fn least(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let rules = "on >pw ~syncguard:* resetchannels &syncguard:* +evalsha +eval +get +set +del +incr +decr \
                 +pexpire +time +publish +subscribe +unsubscribe +ping";
    let rules: Vec<_> = rules.split_whitespace().collect();
    raw.run(&[&["ACL", "SETUSER", "least"], &rules[..]].concat()).await;
    let url = format!("redis://least:pw@127.0.0.1:{}", spare.port);
    let (one, two) = (options().connect(&url).await?, options().connect(&url).await?);
    let key = fresh_key();
    let subscription = subscribed_waiter(&two, &key).await;
    assert_notified(&one, &two, &key).await?;
    drop(subscription);
    until("still subscribed", async || channels(&raw, "CHANNELS").await.is_empty()).await;
    // The server refused only commands that fred sends and does not need.
    for entry in raw.run(&["ACL", "LOG"]).await.into_array() {
        let entry: Vec<_> = entry.into_array().iter().map(|part| part.as_string()).collect();
        let object = entry.iter().position(|part| part.as_deref() == Some("object")).unwrap();
        let object = entry[object + 1].as_deref().unwrap();
        assert!(["client", "client|id", "info"].contains(&object), "{object}");
    }
    Ok(())
}

async fn logged(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    user(&raw, "no-channel", &["resetchannels"]).await;
    let url = format!("redis://no-channel:pw@127.0.0.1:{}", spare.port);
    let key = fresh_key();
    let waited_for = key.clone();
    let events = logging("syncguard_redis", |log| async move {
        let backend = options().connect(&url).await?;
        let before = connections(&raw).await;
        let _waiter = notification(&backend, &waited_for);
        until("no new attempt", async || connections(&raw).await >= before + 3).await;
        Outcome::Ok(log.events())
    });
    let events = events.await?;
    let [(level, event)] = &events[..] else { panic!("{events:?}") };
    assert!(*level == Level::WARN && event.contains("AuthFailed"), "{event}");
    assert!(!event.contains(key.as_str()), "{event}");
    Ok(())
}

/// Simulates a firewall that cuts connections it takes for idle.
async fn cut_early(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let url = url(&spare).await?;
    let warning = logging("syncguard_redis", |log| async move {
        let (raw, backend, key) = (raw(&url).await, options().connect(&url).await?, fresh_key());
        let _subscription = subscribed_waiter(&backend, &key).await;
        let warning = warning_of_early_ends(&log, async || {
            let notified = notification(&backend, &key);
            assert_eq!(raw.number(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, 1);
            wakes_up(notified, "after the reconnect").await;
            Outcome::Ok(())
        });
        warning.await
    });
    let warning = warning.await?;
    assert!(warning.contains("the connection was lost"), "{warning}");
    Ok(())
}

async fn off(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let backend = options().notifications(false).connect(&spare.url).await?;
    assert!(!backend.capabilities().receives_notifications());
    let key = fresh_key();
    let mut notified = notification(&backend, &key);
    let lease = take(&backend, &key).await?;
    assert!(backend.release(&lease).await?);
    let lease = take(&backend, &key).await?;
    assert!(backend.release_by_id(lease.id()).await?);
    assert!(timeout(A_MOMENT, &mut notified).await.is_err());
    assert_eq!(raw.calls("publish").await, 0);
    assert_eq!(raw.calls("subscribe").await, 0);
    Ok(())
}

async fn pool(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &["--requirepass", "secret"]).await?;
    let url = format!("redis://:secret@127.0.0.1:{}/3", spare.port);
    let raw = raw(&url).await;
    let pool = Builder::from_config(Config::from_url(&url)?).build_pool(3)?;
    pool.init().await?;
    let (one, two) = (options().connect(&url).await?, options().build(pool.clone())?);
    let keys = [fresh_key(), fresh_key(), fresh_key()];
    let mut subscriptions = Vec::new();
    for key in &keys {
        subscriptions.push(subscribed_waiter(&two, key).await);
        assert_notified(&one, &two, key).await?;
    }
    assert_eq!(subscribers(&raw).await, 1);
    // The subscriber is the backend's own connection, so it outlives the pool of the caller.
    pool.quit().await?;
    drop(two);
    until("the subscriber is still connected", async || subscribers(&raw).await == 0).await;
    Ok(())
}

async fn another_runtime(server: Arc<Server>) -> Outcome {
    let spare = spare(&server, &[]).await?;
    let raw = raw(&spare.url).await;
    let (one, two) = (options().connect(&spare.url).await?, options().connect(&spare.url).await?);
    let key = fresh_key();
    let (there, waited_for) = (two.clone(), key.clone());
    let first = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        runtime.block_on(subscribed_waiter(&there, &waited_for))
    });
    let first = tokio::task::spawn_blocking(move || first.join().unwrap()).await?;
    until("the subscriber outlived its runtime", async || subscribers(&raw).await == 0).await;
    let _subscription = subscribed_waiter(&two, &key).await;
    assert_notified(&one, &two, &key).await?;
    assert_eq!(subscribers(&raw).await, 1);
    // A waiter of the first runtime is woken too.
    wakes_up(first, "on another runtime").await;
    // Outside a runtime no listener can run, and the call does no harm.
    let outside = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || notification(&two, &key)).join().unwrap()
    });
    drop(outside.await?);
    Ok(())
}

async fn cluster(server: Arc<Server>) -> Outcome {
    let port = free_port();
    let node = one_slot_cluster(&server, port, port).await?;
    let raw = &node.raw;
    let url = format!("redis-cluster://127.0.0.1:{port}");
    let tagged = options().key_prefix("{syncguard}");
    if !raw.has_sharded_channels().await {
        return served_by_timer(&tagged.connect(&url).await?).await;
    }
    let (one, two) = (tagged.clone().connect(&url).await?, tagged.connect(&url).await?);
    let keys = [fresh_key(), Key::new("with{another}tag").unwrap(), fresh_key()];
    let mut subscriptions = Vec::new();
    for key in &keys {
        subscriptions.push(subscribed_waiter(&two, key).await);
    }
    let names = keys.each_ref().map(|key| format!("{{syncguard}}:{}", key.as_str()));
    assert_eq!(channels(raw, "SHARDCHANNELS").await, BTreeSet::from(names.clone()));
    assert!(channels(raw, "CHANNELS").await.is_empty());
    for key in &keys {
        assert_notified(&one, &two, key).await?;
    }
    let mut notified = notification(&two, &keys[0]);
    assert!(timeout(A_MOMENT, &mut notified).await.is_err(), "woken without a release");
    raw.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    wakes_up(notified, "after the reconnect").await;
    for key in &keys {
        assert_notified(&one, &two, key).await?;
    }
    subscriptions.truncate(1);
    let left = BTreeSet::from([names[0].clone()]);
    until("unsubscribing left other than one", async || {
        channels(raw, "SHARDCHANNELS").await == left
    })
    .await;
    drop(subscriptions);
    until("still subscribed", async || channels(raw, "SHARDCHANNELS").await.is_empty()).await;
    Ok(())
}

/// Checks that a waiter is served although no notification can arrive.
async fn served_by_timer(backend: &RedisBackend) -> Outcome {
    let key = fresh_key();
    let lease = take(backend, &key).await?;
    let locks = LockManager::new(backend.clone());
    let waiting = locks.lock(&key).wait(PATIENCE).max_retries(1_000);
    let waiting = waiting.backoff(Backoff::fixed(Duration::from_millis(50)));
    let (guard, released) = tokio::join!(waiting.acquire(), async {
        sleep(A_MOMENT).await;
        backend.release(&lease).await
    });
    assert!(released?);
    assert!(guard?.release().await?);
    Ok(())
}

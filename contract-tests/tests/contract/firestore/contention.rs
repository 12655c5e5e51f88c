//! Many clients at once on one key or one lease.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::TOLERANCE;
use syncguard_firestore::{Acquired, Backend, FirestoreBackend, Key, Result};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::clocks::{system_minus, system_plus};
use super::proxy::{COMMIT, Proxy, Verdict};
use super::{
    Emulator, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl, without_revision,
};

cases![
    a1_one_winner_of_fifty_on_a_free_key_a_hundred_times,
    a1_one_winner_of_fifty_on_a_dead_key_a_hundred_times,
    r2_one_of_fifty_releases_is_true_a_hundred_times,
    a1_a_lease_extended_before_the_commit_stays,
    a3_a_fence_granted_before_the_commit_is_not_granted_again,
    r3_a_key_taken_before_the_commit_is_not_extended,
];

async fn a1_one_winner_of_fifty_on_a_free_key_a_hundred_times(emulator: Emulator) {
    let clients = [emulator.backend().await, emulator.backend().await];
    for _ in 0..100 {
        let key = fresh_key();
        race(&clients, &key, 1).await;
    }
}

async fn a1_one_winner_of_fifty_on_a_dead_key_a_hundred_times(emulator: Emulator) {
    // This client grants leases that expired an hour ago.
    let hour = Duration::from_secs(3_600);
    let late = emulator.builder().clock(system_minus(hour));
    let late = late.connect(PROJECT).await.unwrap();
    let clients = [emulator.backend().await, emulator.backend().await];
    for _ in 0..100 {
        let key = fresh_key();
        granted(late.acquire(&key, &fresh_id(), ttl(LONG)).await);
        race(&clients, &key, 2).await;
    }
}

/// Races fifty acquires. Checks that one gets the key with this fence, and that a lookup finds it.
async fn race(clients: &[FirestoreBackend; 2], key: &Key, fence: u64) {
    let mut racers = JoinSet::new();
    for racer_number in 0..50 {
        let (client, key) = (clients[racer_number % 2].clone(), key.clone());
        racers.spawn(async move { client.acquire(&key, &fresh_id(), ttl(LONG)).await });
    }
    let mut winners = Vec::new();
    while let Some(racer) = racers.join_next().await {
        if let Acquired::Granted(lease) = racer.unwrap().unwrap() {
            winners.push(lease);
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(winners[0].fence().get(), fence);
    let record = clients[0].get(key).await.unwrap().unwrap();
    assert_eq!(record.id(), winners[0].id());
}

async fn r2_one_of_fifty_releases_is_true_a_hundred_times(emulator: Emulator) {
    let clients = [emulator.backend().await, emulator.backend().await];
    for _ in 0..100 {
        let lease = granted(clients[0].acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        let mut racers = JoinSet::new();
        for racer_number in 0..50 {
            let (client, lease) = (clients[racer_number % 2].clone(), lease.clone());
            racers.spawn(async move {
                // A third have no revision, and a third have only the id.
                match racer_number % 3 {
                    0 => client.release(&lease).await,
                    1 => client.release(&without_revision(&lease)).await,
                    _ => client.release_by_id(lease.id()).await,
                }
            });
        }
        let mut released = 0;
        while let Some(racer) = racers.join_next().await {
            released += u32::from(racer.unwrap().unwrap());
        }
        assert_eq!(released, 1);
    }
}

/// Starts an acquire that has found the key free and whose commit waits for the returned `Notify`.
async fn ready_to_commit(
    proxy: &Proxy,
    backend: FirestoreBackend,
    key: &Key,
) -> (JoinHandle<Result<Acquired>>, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let (reached, commit) = (Arc::new(Notify::new()), go.clone());
    proxy.judge({
        let (reached, mut first) = (reached.clone(), true);
        move |method| {
            if method == COMMIT && std::mem::take(&mut first) {
                reached.notify_one();
                return Verdict::Wait(commit.clone());
            }
            Verdict::Pass
        }
    });
    let key = key.clone();
    let acquiring =
        tokio::task::spawn(async move { backend.acquire(&key, &fresh_id(), ttl(LONG)).await });
    reached.notified().await;
    (acquiring, go)
}

async fn a1_a_lease_extended_before_the_commit_stays(emulator: Emulator) {
    let holder = emulator.backend().await;
    let key = fresh_key();
    let lease = granted(holder.acquire(&key, &fresh_id(), ttl(LONG)).await);
    // The lease is dead by this clock.
    let proxy = Proxy::before(&emulator.address);
    let ahead = builder(&proxy.address()).clock(system_plus(LONG + 2 * TOLERANCE));
    let ahead = ahead.connect(PROJECT).await.unwrap();
    let (acquiring, go) = ready_to_commit(&proxy, ahead, &key).await;
    let extended = holder.extend(&lease, ttl(2 * LONG)).await.unwrap().unwrap();
    go.notify_one();
    assert!(matches!(acquiring.await.unwrap().unwrap(), Acquired::Held { .. }));
    assert!(holder.release(&extended).await.unwrap());
}

async fn a3_a_fence_granted_before_the_commit_is_not_granted_again(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let (other, key) = (emulator.backend().await, fresh_key());
    let (acquiring, go) = ready_to_commit(&proxy, backend, &key).await;
    // Afterwards the lock document is missing again, as it was before.
    let first = granted(other.acquire(&key, &fresh_id(), ttl(LONG)).await);
    assert!(other.release(&first).await.unwrap());
    go.notify_one();
    let second = granted(acquiring.await.unwrap());
    assert_eq!([first.fence().get(), second.fence().get()], [1, 2]);
}

async fn r3_a_key_taken_before_the_commit_is_not_extended(emulator: Emulator) {
    let (proxy, holder) = emulator.through_proxy().await;
    let key = fresh_key();
    let lease = granted(holder.acquire(&key, &fresh_id(), ttl(LONG)).await);
    // The lease is dead by this clock.
    let ahead = emulator.builder().clock(system_plus(LONG + 2 * TOLERANCE));
    let ahead = ahead.connect(PROJECT).await.unwrap();
    let go = Arc::new(Notify::new());
    proxy.judge_next(COMMIT, [Verdict::Wait(go.clone())]);
    let extending = tokio::task::spawn({
        let (holder, lease) = (holder.clone(), lease.clone());
        async move { holder.extend(&lease, ttl(LONG)).await }
    });
    let successor = granted(ahead.acquire(&key, &fresh_id(), ttl(LONG)).await);
    go.notify_one();
    assert_eq!(extending.await.unwrap().unwrap(), None);
    assert!(!holder.release(&lease).await.unwrap());
    assert!(ahead.release(&successor).await.unwrap());
}

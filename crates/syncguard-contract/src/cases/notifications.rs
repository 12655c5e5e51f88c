//! W9: notifications that a key may be free.

use std::pin::Pin;
use std::time::Duration;

use syncguard::LockManager;
use syncguard_core::{Backend, Key, Lease, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::{Instant, timeout};

use crate::store::{LONG, SLOW, SOON, Store, fresh_id, fresh_key, granted, ttl, until};
use crate::waiter::Waiter;

cases![
    w9_a_notification_comes_with_a_release needs Notifications,
    w9_a_release_by_another_client_wakes_the_first,
    w9_a_release_in_the_same_process_needs_no_notification,
    w9_a_release_before_an_attempt_is_not_missed,
    w9_a_release_after_an_attempt_is_not_missed,
];

/// A backend that pushes notifications tells of a release, also one that came before the notification was polled, and
/// also one by id. Of the others nothing is expected but that asking does no harm.
async fn w9_a_notification_comes_with_a_release(store: Store) -> Result<()> {
    let key = fresh_key();
    for heard_of in [false, true] {
        // Where there is one, no notification comes just because the backend begins to listen.
        let _interest =
            if heard_of { Some(interest(&store, &store.two, &key).await?) } else { None };
        for by_id in [false, true, false, true] {
            let lease = store.take(&key, LONG).await?;
            let notification = store.two.notified(&key);
            assert!(if by_id {
                store.one.release_by_id(lease.id()).await?
            } else {
                store.one.release(&lease).await?
            });
            if store.wakes() {
                assert!(
                    timeout(SOON, notification).await.is_ok(),
                    "no notification came (by id: {by_id})"
                );
            }
            assert!(!store.is_held(&fresh_key()).await?);
        }
    }
    Ok(())
}

/// By a client other than that of the waiter.
async fn other_clients_lease(store: &Store, key: &Key) -> Result<Lease> {
    Ok(granted(store.two.acquire(key, &fresh_id(), ttl(LONG)).await?))
}

async fn w9_a_release_by_another_client_wakes_the_first(store: Store) -> Result<()> {
    let key = fresh_key();
    // The second attempt is made when the backend listens.
    let attempts_before_sleep = if store.wakes() { 2 } else { 1 };
    for _ in 0..3 {
        let (faulty, locks) = store.troubled(|_, _| Fault::None);
        let lease = other_clients_lease(&store, &key).await?;
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
        let waiter = Waiter::for_turn(request).await;
        let asleep = async || Ok(faulty.count(Operation::Acquire) >= attempts_before_sleep);
        until(asleep).await?;
        assert!(store.two.release(&lease).await?);
        woken(waiter).await?;
    }
    Ok(())
}

async fn w9_a_release_in_the_same_process_needs_no_notification(store: Store) -> Result<()> {
    let faulty = store.faulty(|_, _| Fault::None).without_notifications().without_handoff();
    let locks = LockManager::new(faulty);
    loop {
        let (key, begun) = (fresh_key(), Instant::now());
        let guard = locks.lock(&key).ttl(LONG).acquire().await?;
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(SLOW);
        let waiter = Waiter::for_turn(request).await;
        assert!(guard.release().await?);
        // After a second it is the turn of others (G8).
        if begun.elapsed() < Duration::from_secs(1) {
            return woken(waiter).await;
        }
    }
}

async fn w9_a_release_before_an_attempt_is_not_missed(store: Store) -> Result<()> {
    released_at_an_attempt(&store, Fault::HoldRequest).await
}

async fn w9_a_release_after_an_attempt_is_not_missed(store: Store) -> Result<()> {
    released_at_an_attempt(&store, Fault::HoldReply).await
}

/// The key is released while an attempt is on its way to the backend or back, as the first attempt,
/// when the waiter has told the backend nothing yet, and as the one after that.
async fn released_at_an_attempt(store: &Store, trouble: Fault) -> Result<()> {
    for (attempt, heard_of) in [(0, false), (1, false), (0, true), (1, true)] {
        let key = fresh_key();
        let (faulty, locks) = store.troubled(move |operation, before| match operation {
            Operation::Acquire if before == attempt => trouble,
            _ => Fault::None,
        });
        let _interest = if heard_of { Some(interest(store, &faulty, &key).await?) } else { None };
        let lease = other_clients_lease(store, &key).await?;
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
        let waiter = Waiter::for_turn(request).await;
        release_when_held(store, &faulty, &lease).await?;
        woken(waiter).await?;
    }
    Ok(())
}

/// Somebody else's interest in the key. The backend hears of its releases, so it does nothing new when
/// another one is taken.
async fn interest(
    store: &Store,
    client: &impl Backend,
    key: &Key,
) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let mut first = Box::pin(client.notified(key));
    let lease = other_clients_lease(store, key).await?;
    assert!(store.two.release(&lease).await?);
    if store.wakes() {
        assert!(timeout(SOON, first.as_mut()).await.is_ok(), "no notification came");
    }
    // Before the first one ends.
    Ok(Box::pin(client.notified(key)))
}

async fn release_when_held(store: &Store, faulty: &FaultyBackend, lease: &Lease) -> Result<()> {
    until(async || Ok(faulty.held() == 1)).await?;
    assert!(store.two.release(lease).await?);
    faulty.open();
    Ok(())
}

async fn woken<T: Send + 'static>(waiter: Waiter<T>) -> Result<()> {
    let released = Instant::now();
    waiter.outcome().await?;
    let waited = released.elapsed();
    assert!(waited < SOON, "not woken for {waited:?}");
    Ok(())
}

//! W9: notifications that a key may be free.

use std::pin::Pin;
use std::time::Duration;

use syncguard::LockManager;
use syncguard_core::{Backend, Key, Lease, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::time::{Instant, timeout};

use crate::expect::{assert_released, granted};
use crate::store::{LONG, SLOW, SOON, Store, fresh_id, fresh_key, ttl, until};
use crate::waiter::Waiter;

cases![
    w9_a_notification_comes_with_a_release needs Notifications,
    w9_a_release_by_another_client_wakes_the_first_waiter,
    w9_a_release_in_the_same_process_needs_no_notification,
    w9_a_release_before_an_attempt_is_not_missed,
    w9_a_release_after_an_attempt_is_not_missed,
];

/// A release sends a notification, also if it came before the first poll, and also if it was by id.
async fn w9_a_notification_comes_with_a_release(store: Store) -> Result<()> {
    let key = fresh_key();
    for registered in [false, true] {
        // With another registration, no notification comes only because the backend starts to
        // listen.
        let _registration =
            if registered { Some(registration(&store, &store.two, &key).await?) } else { None };
        for by_id in [false, true, false, true] {
            let lease = store.take(&key, LONG).await?;
            let notification = store.two.notified(&key);
            assert!(if by_id {
                store.one.release_by_id(lease.id()).await?
            } else {
                store.one.release(&lease).await?
            });
            if store.notifies() {
                assert!(
                    timeout(SOON, notification).await.is_ok(),
                    "expected a notification within {SOON:?} (release by id: {by_id}), but none came"
                );
            }
            store.assert_free(&fresh_key()).await?;
        }
    }
    Ok(())
}

/// A lease of a client other than that of the waiter.
async fn other_clients_lease(store: &Store, key: &Key) -> Result<Lease> {
    Ok(granted(store.two.acquire(key, &fresh_id(), ttl(LONG)).await?))
}

async fn w9_a_release_by_another_client_wakes_the_first_waiter(store: Store) -> Result<()> {
    let key = fresh_key();
    // The second attempt follows when the backend listens.
    let attempts_before_sleep = if store.notifies() { 2 } else { 1 };
    for _ in 0..3 {
        let (faulty, locks) = store.with_faults(|_, _| Fault::None);
        let lease = other_clients_lease(&store, &key).await?;
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
        let waiter = Waiter::for_fence(request).await;
        let asleep = async || Ok(faulty.count(Operation::Acquire) >= attempts_before_sleep);
        until(asleep).await?;
        assert_released(store.two.release(&lease).await?);
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
        let waiter = Waiter::for_fence(request).await;
        assert_released(guard.release().await?);
        // After a second, the runtime releases the key to other processes (G8).
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

/// The key is released while a request or a reply is under way: of the first attempt, before the
/// waiter has registered for notifications, and of the second.
async fn released_at_an_attempt(store: &Store, fault: Fault) -> Result<()> {
    for (attempt, registered) in [(0, false), (1, false), (0, true), (1, true)] {
        let key = fresh_key();
        let (faulty, locks) = store.with_faults(move |operation, before| match operation {
            Operation::Acquire if before == attempt => fault,
            _ => Fault::None,
        });
        let _registration =
            if registered { Some(registration(store, &faulty, &key).await?) } else { None };
        let lease = other_clients_lease(store, &key).await?;
        let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
        let waiter = Waiter::for_fence(request).await;
        release_when_held(store, &faulty, &lease).await?;
        woken(waiter).await?;
    }
    Ok(())
}

/// Another registration for the key. The backend listens already, so one more changes nothing.
async fn registration(
    store: &Store,
    client: &impl Backend,
    key: &Key,
) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let mut first = Box::pin(client.notified(key));
    let lease = other_clients_lease(store, key).await?;
    assert_released(store.two.release(&lease).await?);
    if store.notifies() {
        assert!(
            timeout(SOON, first.as_mut()).await.is_ok(),
            "expected a notification within {SOON:?}, but none came"
        );
    }
    // It starts before the first one ends, so the backend listens without a gap.
    Ok(Box::pin(client.notified(key)))
}

async fn release_when_held(store: &Store, faulty: &FaultyBackend, lease: &Lease) -> Result<()> {
    until(async || Ok(faulty.held() == 1)).await?;
    assert_released(store.two.release(lease).await?);
    faulty.open();
    Ok(())
}

async fn woken<T: Send + 'static>(waiter: Waiter<T>) -> Result<()> {
    let released = Instant::now();
    waiter.outcome().await?;
    let waited = released.elapsed();
    assert!(waited < SOON, "expected the waiter to be woken at once, but it waited for {waited:?}");
    Ok(())
}

//! T: when a lease ends, and on which clock.

use std::time::{Duration, SystemTime};

use syncguard_core::{Backend, Clock, Key, Result, TOLERANCE, Ttl};
use tokio::time::{Instant, sleep};

use crate::expect::{RECORD, assert_extended, assert_not_released, assert_released, granted};
use crate::store::{GRAIN, LONG, PAUSE, Store, fresh_id, fresh_key, ttl};

cases![
    t1_a_clients_clock_is_declared,
    t2_get_shows_a_lease_until_its_end,
    t2_find_shows_a_lease_until_its_end,
    t2_a_key_is_taken_again_at_its_end,
    t2_an_extended_lease_lives_until_its_new_end,
    t3_a_ttl_of_one_millisecond,
    t3_the_longest_ttl,
];

const SHORT: Duration = Duration::from_millis(300);

/// Polls until the lease has ended. It must not end early, and a poll after its latest end must not
/// find it live.
///
/// `sent` and `answered` are the moments before and after the request that set the TTL. The store
/// counts from a moment between the two.
async fn watch(
    store: &Store,
    (sent, answered): (Instant, Instant),
    has_ended: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    let latest = SHORT + TOLERANCE;
    let earliest = if store.one.capabilities().ends_at_ttl() { SHORT } else { latest };
    loop {
        let asked = Instant::now();
        if has_ended().await? {
            let age = sent.elapsed();
            assert!(
                age + GRAIN >= earliest,
                "expected the lease to live for {earliest:?}, but it ended after {age:?}"
            );
            return Ok(());
        }
        let age = asked - answered;
        assert!(
            age < latest + GRAIN,
            "expected the lease to end after {latest:?}, but it is live after {age:?}"
        );
        sleep(PAUSE).await;
    }
}

async fn t2_get_shows_a_lease_until_its_end(store: Store) -> Result<()> {
    let (key, sent) = (fresh_key(), Instant::now());
    store.take(&key, SHORT).await?;
    let ended = async || Ok(store.two.get(&key).await?.is_none());
    watch(&store, (sent, Instant::now()), ended).await
}

async fn t2_find_shows_a_lease_until_its_end(store: Store) -> Result<()> {
    let sent = Instant::now();
    let lease = store.take(&fresh_key(), SHORT).await?;
    let ended = async || Ok(store.two.find(lease.id()).await?.is_none());
    watch(&store, (sent, Instant::now()), ended).await
}

async fn t2_a_key_is_taken_again_at_its_end(store: Store) -> Result<()> {
    let (key, sent) = (fresh_key(), Instant::now());
    store.take(&key, SHORT).await?;
    let ended = async || Ok(!store.is_held(&key).await?);
    watch(&store, (sent, Instant::now()), ended).await
}

async fn t2_an_extended_lease_lives_until_its_new_end(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take(&key, LONG).await?;
    let sent = Instant::now();
    let extended = store.two.extend(&lease, ttl(SHORT)).await?;
    assert!(extended.is_some(), "expected the live lease to be extended, but got None");
    let ended = async || Ok(store.two.get(&key).await?.is_none());
    watch(&store, (sent, Instant::now()), ended).await
}

async fn t3_a_ttl_of_one_millisecond(store: Store) -> Result<()> {
    let key = fresh_key();
    let lease = store.take_and_let_die(&key).await?;
    assert_not_released(store.one.release(&lease).await?);
    store.assert_free(&key).await?;
    Ok(())
}

async fn t3_the_longest_ttl(store: Store) -> Result<()> {
    let key = fresh_key();
    let acquired = store.one.acquire(&key, &fresh_id(), Ttl::MAX).await?;
    let lease = granted(acquired);
    let record = store.two.get(&key).await?.expect(RECORD);
    let lasts = record.expires_at().since(record.acquired_at());
    assert_eq!(lasts, Ttl::MAX.as_duration());
    assert_eq!(lease.expires_at(), record.expires_at());
    assert_extended(store.two.extend(&lease, Ttl::MAX).await?);
    assert_released(store.two.release(&lease).await?);
    Ok(())
}

/// T1: the clock of a client is that of this process. The clock of a server is the same for both
/// clients.
async fn t1_a_clients_clock_is_declared(store: Store) -> Result<()> {
    let before = wall_clock();
    let first = acquired_at(&store, &fresh_key(), 0).await?;
    let second = acquired_at(&store, &fresh_key(), 1).await?;
    let after = wall_clock();
    assert!(
        first <= second + GRAIN,
        "expected `acquired_at` to grow, but got {first:?} and then {second:?}"
    );
    if store.one.capabilities().clock() == Clock::Client {
        check!(before, <=, first + GRAIN);
        check!(second, <=, after + GRAIN);
    }
    Ok(())
}

async fn acquired_at(store: &Store, key: &Key, index: usize) -> Result<Duration> {
    let client = store.client(index);
    granted(client.acquire(key, &fresh_id(), ttl(LONG)).await?);
    let record = store.one.get(key).await?.expect(RECORD);
    Ok(Duration::from_millis(record.acquired_at().as_millis()))
}

fn wall_clock() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("it is later than 1970")
}

//! Clients whose clocks differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use syncguard_firestore::{Acquired, Backend, ClockOffset, FirestoreBackend, Timestamp};

use super::{Emulator, PROJECT, cases, fresh_id, fresh_key, granted, ttl};

cases![
    a1_clocks_900_ms_apart_keep_locks_exclusive,
    a1_clocks_900_ms_apart_keep_locks_exclusive_at_random,
    a3_the_fence_still_protects_if_a_clock_exceeds_the_tolerance,
    t1_the_offset_from_the_servers_clock_is_measured,
];

const TTL: u64 = 5_000;

/// The true time in milliseconds. It changes only when a trial sets it.
#[derive(Clone, Debug)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    fn set(&self, millis: u64) {
        self.0.store(1_800_000_000_000 + millis, Ordering::SeqCst);
    }

    /// Creates a client whose clock is `off` ms ahead of the true time.
    async fn holder(&self, emulator: &Emulator, off: i64) -> FirestoreBackend {
        let time = self.0.clone();
        let builder = emulator.builder().clock(move || {
            let now = time.load(Ordering::SeqCst);
            Timestamp::from_millis(now.checked_add_signed(off).unwrap())
        });
        builder.connect(PROJECT).await.unwrap()
    }
}

pub(super) fn system_minus(late: Duration) -> impl Fn() -> Timestamp + Send + Sync {
    move || timestamp(SystemTime::now() - late)
}

pub(super) fn system_plus(early: Duration) -> impl Fn() -> Timestamp + Send + Sync {
    move || timestamp(SystemTime::now() + early)
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since_epoch.as_millis().try_into().unwrap())
}

async fn a1_clocks_900_ms_apart_keep_locks_exclusive(emulator: Emulator) {
    for off in [900, -900] {
        let time = Time::new();
        let (one, two) = (time.holder(&emulator, 0).await, time.holder(&emulator, off).await);
        let key = fresh_key();
        let takes = async |at: u64| {
            time.set(at);
            let acquired = two.acquire(&key, &fresh_id(), ttl(Duration::from_millis(TTL))).await;
            matches!(acquired.unwrap(), Acquired::Granted(_))
        };
        let lease = granted(one.acquire(&key, &fresh_id(), ttl(Duration::from_millis(TTL))).await);
        // The first client relies on its lease until its TTL has passed (T4).
        for at in [1, TTL - 1, TTL] {
            assert!(!takes(at).await, "{off}: taken at {at}");
        }
        // The other client takes the key over when the tolerance has passed on its own clock.
        let end = (TTL + 1_000).checked_add_signed(-off).unwrap();
        assert!(!takes(end - 1).await);
        assert!(takes(end).await);
        assert!(one.extend(&lease, ttl(Duration::from_secs(1))).await.unwrap().is_none());
        assert!(!one.release(&lease).await.unwrap());
    }
}

/// A random walk: at every moment at most one of the two clients may rely on the lock.
async fn a1_clocks_900_ms_apart_keep_locks_exclusive_at_random(emulator: Emulator) {
    for (off, seed) in [(900, 1), (-900, 2), (900, 3), (-900, 4)] {
        let mut random = fastrand::Rng::with_seed(seed);
        let time = Time::new();
        let holders = [time.holder(&emulator, 0).await, time.holder(&emulator, off).await];
        let (key, mut now) = (fresh_key(), 0);
        // The lease of each client, and the time until which it relies on it.
        let mut held = [const { None }; 2];
        for _ in 0..150 {
            now += random.u64(0..1_500);
            time.set(now);
            let who = random.usize(0..2);
            let millis = random.u64(1..4_000);
            let duration = ttl(Duration::from_millis(millis));
            let was = held[who].take();
            held[who] = match (was, random.u32(0..4)) {
                (Some((lease, _)), 0) => {
                    holders[who].release(&lease).await.unwrap();
                    None
                }
                (Some((lease, until)), 1 | 2) if now <= until => {
                    let extended = holders[who].extend(&lease, duration).await.unwrap();
                    extended.map(|lease| (lease, now + millis))
                }
                (was, _) => {
                    match holders[who].acquire(&key, &fresh_id(), duration).await.unwrap() {
                        Acquired::Granted(lease) => Some((lease, now + millis)),
                        Acquired::Held { .. } => was,
                    }
                }
            };
            let holding = held.iter().flatten().filter(|(_, until)| now <= *until);
            assert!(holding.count() <= 1, "seed {seed}: two holders at {now}");
        }
    }
}

async fn a3_the_fence_still_protects_if_a_clock_exceeds_the_tolerance(emulator: Emulator) {
    let time = Time::new();
    let one = time.holder(&emulator, 0).await;
    let two = time.holder(&emulator, 1_100).await;
    let (key, duration) = (fresh_key(), ttl(Duration::from_millis(TTL)));
    let first = granted(one.acquire(&key, &fresh_id(), duration).await);
    // As documented, two clients rely on the lock now. Only the fence tells them apart.
    time.set(TTL - 100);
    let second = granted(two.acquire(&key, &fresh_id(), duration).await);
    assert!(second.fence() > first.fence());
    assert!(!one.release(&first).await.unwrap());
}

async fn t1_the_offset_from_the_servers_clock_is_measured(emulator: Emulator) {
    let off = Duration::from_secs(10);
    let late = emulator.builder().clock(system_minus(off)).connect(PROJECT).await.unwrap();
    let offset = late.clock_offset().await.unwrap();
    assert_eq!(offset.ahead(), Duration::ZERO);
    assert!(offset.behind().abs_diff(off) <= offset.uncertainty() + Duration::from_millis(2));
    assert!(offset.certainly_exceeds(ClockOffset::WARN_ABOVE));

    let right = emulator.backend().await.clock_offset().await.unwrap();
    assert!(!right.certainly_exceeds(ClockOffset::WARN_ABOVE), "{right:?}");
}

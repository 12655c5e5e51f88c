//! G5 to G8: a release that serves the first in line.
//!
//! Where a backend cannot hand a lease over, the same is asked of a release and an attempt.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use syncguard::{Backoff, CancellationToken, LockGuard, LockManager, LockRequest};
use syncguard_core::{Backend, ErrorCode, Key, Lease, LockRecord, Operation, Result};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::store::{LONG, PAUSE, QUICK, SLOW, Store, code, fresh_key, operations, until};
use crate::waiter::Waiter;

cases![
    g5_the_first_in_line_is_served_by_one_call,
    g5_a_guard_that_is_dropped_serves_the_first_in_line,
    g5_the_new_guard_is_like_any_other,
    g5_the_new_guard_is_kept_alive,
    g5_nothing_is_handed_off_where_it_is_not_declared,
    g6_a_handoff_that_is_refused_leaves_nobody_waiting,
    g6_a_handoff_whose_reply_is_lost_leaves_nobody_waiting,
    g6_an_heir_that_looks_late_keeps_what_it_got,
    g6_a_handoff_whose_heir_gives_up_leaves_no_lease,
    g6_a_handoff_whose_heir_never_looks_leaves_no_lease,
    g7_an_heir_that_leaves_is_followed_by_the_next,
    g7_an_heir_that_leaves_alone_leaves_no_lease,
    g7_a_releaser_that_leaves_holds_nobody_up,
    g8_other_clients_get_their_turn,
];

/// After this time others get their turn, handed over or not.
const STREAK: Duration = Duration::from_secs(1);

/// A guard whose release is under way, and those who stood in line for its key.
struct Scene {
    faulty: FaultyBackend,
    locks: LockManager,
    key: Key,
    old: Lease,
    released: Option<Waiter<bool>>,
    waiters: Vec<Waiter<LockGuard>>,
    tokens: Vec<CancellationToken>,
}

impl Scene {
    async fn new(
        store: &Store,
        waiters: usize,
        request: impl Fn(LockRequest) -> LockRequest,
        trouble: impl Fn(Operation, usize) -> Fault + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        // It is the turn of others after a second, which a busy machine may take, and an attempt of
        // the first in line may be under way.
        for _ in 0..20 {
            let (faulty, locks) = store.troubled(trouble.clone());
            let key = fresh_key();
            let guard = locks.lock(&key).ttl(LONG).acquire().await?;
            let old = guard.lease();
            let tokens: Vec<_> = (0..waiters).map(|_| CancellationToken::new()).collect();
            let mut standing = Vec::new();
            for token in &tokens {
                let request = request(locks.lock(&key).ttl(LONG * 2).wait(LONG));
                standing.push(Waiter::for_guard(request.cancel(token.clone())).await);
            }
            let released = Some(Waiter::new(guard.release()).await);
            until(async || Ok(ends(&faulty) > 0)).await?;
            if faulty.count(Operation::Handoff) > 0 || !faulty.capabilities().supports_handoff() {
                return Ok(Self { faulty, locks, key, old, released, waiters: standing, tokens });
            }
        }
        panic!("not handed over");
    }

    fn supports_handoff(&self) -> bool {
        self.faulty.capabilities().supports_handoff()
    }

    /// Those in line get the lock, one after the other.
    async fn serve_all(&mut self) -> Result<()> {
        let mut fence = self.old.fence();
        for waiter in self.waiters.drain(..) {
            let guard = waiter.outcome().await?;
            assert!(guard.fence() > fence, "not first come first served");
            fence = guard.fence();
            assert!(guard.release().await?, "its lease was taken away");
        }
        Ok(())
    }

    /// Once all that is under way is done, nobody holds the key.
    async fn settled(self, store: &Store) -> Result<()> {
        if let Some(released) = self.released {
            // If it failed, it goes on in the background.
            let _ = released.outcome().await;
        }
        self.locks.shutdown().await?;
        assert_eq!(store.two.get(&self.key).await?, None, "a lease remains");
        assert_eq!(self.locks.waiters(), 0);
        Ok(())
    }
}

/// How often a lease was to end.
fn ends(faulty: &FaultyBackend) -> usize {
    faulty.count(Operation::Handoff) + faulty.count(Operation::Release)
}

fn slowly(request: LockRequest) -> LockRequest {
    request.backoff(SLOW)
}

fn quickly(request: LockRequest) -> LockRequest {
    request.backoff(QUICK)
}

async fn g5_the_first_in_line_is_served_by_one_call(store: Store) -> Result<()> {
    let scene = Scene::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let supports_handoff = scene.supports_handoff();
    let Scene { faulty, old, released, waiters, .. } = scene;
    assert!(released.expect("it is under way").outcome().await?, "it was live");
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        if supports_handoff {
            assert_eq!(operations(&faulty), [Operation::Acquire, Operation::Handoff]);
        } else {
            assert_eq!(faulty.count(Operation::Handoff), 0, "it is not declared");
        }
        assert!(guard.fence() > old.fence());
        assert!(guard.release().await?);
    }
    Ok(())
}

async fn g5_a_guard_that_is_dropped_serves_the_first_in_line(store: Store) -> Result<()> {
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let (key, begun) = (fresh_key(), Instant::now());
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let fence = guard.fence();
    let request = locks.lock(&key).ttl(LONG).wait(LONG).backoff(SLOW);
    let waiter = Waiter::for_guard(request).await;
    drop(guard);
    let heir = waiter.outcome().await?;
    let handed_off = usize::from(faulty.capabilities().supports_handoff());
    if begun.elapsed() < STREAK {
        assert_eq!(faulty.count(Operation::Handoff), handed_off);
    }
    assert!(heir.fence() > fence);
    assert!(heir.release().await?);
    Ok(())
}

async fn g5_the_new_guard_is_like_any_other(store: Store) -> Result<()> {
    let scene = Scene::new(&store, 1, slowly, |_, _| Fault::None).await?;
    let Scene { key, old, waiters, .. } = scene;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        let record = store.two.get(&key).await?.expect("it is held");
        assert_eq!((guard.key(), guard.id()), (record.key(), record.id()));
        assert_eq!((guard.fence(), guard.expires_at()), (record.fence(), record.expires_at()));
        assert!(guard.fence() > old.fence() && guard.id() != old.id());
        assert_eq!(store.two.find(old.id()).await?, None, "the old lease lives");
        // The TTL is what the heir asked for, not what the holder had.
        assert_eq!(record.expires_at().since(record.acquired_at()), LONG * 2);
        assert!(LONG < guard.remaining() && guard.remaining() <= LONG * 2);
        assert!(!guard.is_lost());
        let (fence, before) = (guard.fence(), guard.expires_at());
        let after = guard.extend(LONG * 3).await?;
        assert!(after.since(before) >= LONG);
        assert_eq!((guard.fence(), guard.expires_at()), (fence, after));
        assert!(guard.release().await?);
        assert!(!store.is_held(&key).await?);
    }
    Ok(())
}

async fn g5_the_new_guard_is_kept_alive(store: Store) -> Result<()> {
    let kept = |request: LockRequest| slowly(request).ttl(Duration::from_secs(3)).keep_alive();
    let scene = Scene::new(&store, 1, kept, |_, _| Fault::None).await?;
    let Scene { faulty, waiters, .. } = scene;
    for waiter in waiters {
        let guard = waiter.outcome().await?;
        until(async || Ok(faulty.count(Operation::Extend) > 0)).await?;
        assert!(store.two.release_by_id(guard.id()).await?);
        guard.lost().await;
        assert!(guard.is_lost() && guard.remaining().is_zero());
        assert!(!guard.release().await?);
    }
    Ok(())
}

async fn g5_nothing_is_handed_off_where_it_is_not_declared(store: Store) -> Result<()> {
    let faulty = store.faulty(|_, _| Fault::None).without_handoff();
    let locks = LockManager::new(faulty.clone());
    let key = fresh_key();
    let guard = locks.lock(&key).ttl(LONG).acquire().await?;
    let waiter = Waiter::for_turn(quickly(locks.lock(&key).ttl(LONG).wait(LONG))).await;
    let fence = guard.fence();
    assert!(guard.release().await?);
    assert!(waiter.outcome().await? > fence);
    assert_eq!(faulty.count(Operation::Handoff), 0);
    assert_eq!(faulty.count(Operation::Release), 2);
    assert!(!store.is_held(&key).await?);
    Ok(())
}

const FAILURES: [ErrorCode; 6] = [
    ErrorCode::ServiceUnavailable,
    ErrorCode::NetworkTimeout,
    ErrorCode::RateLimited,
    ErrorCode::AuthFailed,
    ErrorCode::InvalidArgument,
    ErrorCode::Internal,
];

async fn g6_a_handoff_that_is_refused_leaves_nobody_waiting(store: Store) -> Result<()> {
    for failure in FAILURES {
        all_are_served(&store, Fault::Fail(failure)).await?;
    }
    Ok(())
}

/// A backend that refuses a request as such has not carried it out.
async fn g6_a_handoff_whose_reply_is_lost_leaves_nobody_waiting(store: Store) -> Result<()> {
    for failure in FAILURES {
        if !matches!(failure, ErrorCode::AuthFailed | ErrorCode::InvalidArgument) {
            all_are_served(&store, Fault::LoseReply(failure)).await?;
        }
    }
    Ok(())
}

async fn all_are_served(store: &Store, trouble: Fault) -> Result<()> {
    let mut scene = Scene::new(store, 3, quickly, first_handoff(trouble)).await?;
    scene.serve_all().await?;
    scene.settled(store).await
}

fn first_handoff(trouble: Fault) -> impl Fn(Operation, usize) -> Fault + Clone {
    move |operation, before| match (operation, before) {
        (Operation::Handoff, 0) => trouble,
        _ => Fault::None,
    }
}

/// The heir is not polled until the handoff has failed and the old guard has done what it can
/// about that, so that it learns of everything at once, also that an attempt is due.
async fn g6_an_heir_that_looks_late_keeps_what_it_got(store: Store) -> Result<()> {
    let troubles = [
        Fault::Fail(ErrorCode::ServiceUnavailable),
        Fault::LoseReply(ErrorCode::ServiceUnavailable),
        Fault::LoseReply(ErrorCode::Internal),
    ];
    for trouble in troubles.into_iter().cycle().take(15) {
        let (faulty, locks) = store.troubled(first_handoff(trouble));
        let key = fresh_key();
        let heir = heir_of_a_failed_handoff(&store, &faulty, &locks, &key).await?;
        sleep(PAUSE * 2).await;
        let heir = heir.await?;
        locks.shutdown().await?;
        let record = store.two.get(&key).await?;
        let holder = record.as_ref().map(LockRecord::id);
        assert_eq!(holder, Some(heir.id()), "it was taken away again");
        assert!(heir.release().await?);
    }
    Ok(())
}

/// The wait of one who stood first in line, and does not know yet what happened since.
async fn heir_of_a_failed_handoff(
    store: &Store,
    faulty: &FaultyBackend,
    locks: &LockManager,
    key: &Key,
) -> Result<Pin<Box<dyn Future<Output = Result<LockGuard>>>>> {
    let guard = locks.lock(key).ttl(LONG).acquire().await?;
    let mut heir = Box::pin(quickly(locks.lock(key).ttl(LONG).wait(LONG)).acquire());
    let first = poll_fn(|context| Poll::Ready(heir.as_mut().poll(context))).await;
    assert!(first.is_pending(), "two have the lock");
    let id = guard.id().clone();
    // It may fail: then it goes on in the background.
    let _ = guard.release().await;
    until(async || Ok(faulty.count(Operation::Handoff) == 0 || ends(faulty) >= 2)).await?;
    until(async || Ok(store.two.find(&id).await?.is_none())).await?;
    Ok(heir)
}

async fn g6_a_handoff_whose_heir_never_looks_leaves_no_lease(store: Store) -> Result<()> {
    for failure in [ErrorCode::ServiceUnavailable, ErrorCode::Internal] {
        let (faulty, locks) = store.troubled(first_handoff(Fault::LoseReply(failure)));
        let key = fresh_key();
        drop(heir_of_a_failed_handoff(&store, &faulty, &locks, &key).await?);
        locks.shutdown().await?;
        assert_eq!(store.two.get(&key).await?, None, "a lease remains");
    }
    Ok(())
}

async fn g6_a_handoff_whose_heir_gives_up_leaves_no_lease(store: Store) -> Result<()> {
    // All that could find what it was granted fails.
    let trouble = |operation, before| match (operation, before) {
        (Operation::Handoff, 0) => Fault::LoseReply(ErrorCode::NetworkTimeout),
        (Operation::Handoff | Operation::Acquire, 1..) => {
            Fault::Fail(ErrorCode::ServiceUnavailable)
        }
        _ => Fault::None,
    };
    let mut scene = Scene::new(&store, 1, quickly, trouble).await?;
    if scene.supports_handoff() {
        until(async || Ok(scene.faulty.count(Operation::Acquire) >= 2)).await?;
    }
    scene.tokens[0].cancel();
    for waiter in scene.waiters.drain(..) {
        assert_eq!(code(waiter.outcome().await), ErrorCode::Aborted);
    }
    scene.settled(&store).await
}

async fn g7_an_heir_that_leaves_is_followed_by_the_next(store: Store) -> Result<()> {
    for trouble in [Fault::HoldRequest, Fault::HoldReply] {
        let mut scene = Scene::new(&store, 2, quickly, first_handoff(trouble)).await?;
        let first = scene.waiters.remove(0);
        if scene.supports_handoff() {
            until(async || Ok(scene.faulty.held() == 1)).await?;
            scene.tokens[0].cancel();
            assert_eq!(code(first.outcome().await), ErrorCode::Aborted);
        } else {
            first.drop_out().await;
        }
        scene.faulty.open();
        let guard = scene.waiters.remove(0).outcome().await?;
        assert!(guard.fence() > scene.old.fence());
        assert!(guard.release().await?);
        scene.settled(&store).await?;
    }
    Ok(())
}

async fn g7_an_heir_that_leaves_alone_leaves_no_lease(store: Store) -> Result<()> {
    for trouble in [Fault::HoldRequest, Fault::HoldReply] {
        let mut scene = Scene::new(&store, 1, quickly, first_handoff(trouble)).await?;
        if scene.supports_handoff() {
            until(async || Ok(scene.faulty.held() == 1)).await?;
        }
        scene.waiters.remove(0).drop_out().await;
        scene.faulty.open();
        scene.settled(&store).await?;
    }
    Ok(())
}

async fn g7_a_releaser_that_leaves_holds_nobody_up(store: Store) -> Result<()> {
    for trouble in [Fault::HoldRequest, Fault::HoldReply] {
        let mut scene = Scene::new(&store, 2, quickly, first_handoff(trouble)).await?;
        if scene.supports_handoff() {
            until(async || Ok(scene.faulty.held() == 1)).await?;
        }
        scene.released.take().expect("it is under way").drop_out().await;
        scene.faulty.open();
        let mut fence = scene.old.fence();
        for waiter in scene.waiters.drain(..) {
            let guard = waiter.outcome().await?;
            assert!(guard.fence() > fence, "not first come first served");
            fence = guard.fence();
            assert!(guard.release().await?);
        }
        scene.settled(&store).await?;
    }
    Ok(())
}

/// Workers of one manager pass the key on among themselves, until a worker of another had its turn.
/// There is always one in line, and hardly ever one who asks by itself.
async fn g8_other_clients_get_their_turn(store: Store) -> Result<()> {
    let key = fresh_key();
    let (faulty, locks) = store.troubled(|_, _| Fault::None);
    let served = Arc::new(AtomicBool::new(false));
    let turns = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..20 {
        let (key, locks) = (key.clone(), locks.clone());
        let (served, turns) = (served.clone(), turns.clone());
        workers.spawn(async move {
            while !served.load(Ordering::SeqCst) {
                let request = locks.lock(&key).ttl(LONG).wait(LONG);
                let backoff = Backoff::fixed(Duration::from_millis(500));
                let guard = request.backoff(backoff).acquire().await?;
                turns.fetch_add(1, Ordering::SeqCst);
                assert!(guard.release().await?);
            }
            Result::Ok(())
        });
    }
    until(async || Ok(turns.load(Ordering::SeqCst) >= 3)).await?;
    let other = LockManager::new(store.two.clone());
    let request = other.lock(&key).ttl(LONG).wait(LONG).backoff(store.backoff());
    let guard = request.acquire().await?;
    served.store(true, Ordering::SeqCst);
    assert!(guard.release().await?);
    workers.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
    if faulty.capabilities().receives_notifications() {
        let calls = operations(&faulty);
        let in_a_row = calls.split(|call| *call != Operation::Handoff).map(<[_]>::len);
        assert!(in_a_row.max() < Some(16), "too many handoffs in a row");
    }
    assert!(!store.is_held(&key).await?);
    Ok(())
}

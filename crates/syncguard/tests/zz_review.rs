//! Review.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
mod support;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use support::{Fault, Spoilt, millis};
use syncguard::{Backoff, ErrorCode, LockManager, Operation};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

// A guard that is kept past its TTL, nobody asks whether it is lost.
#[tokio::test(start_paused = true)]
async fn r1_no_hot_loop_behind_a_local_guard_whose_time_is_up() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    let overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    let request = locks.lock("key").wait(5_000 * MS);
    let waiter = Handle::current().spawn(request.acquire());
    backend.next(Operation::Acquire, vec![Fault::ReplyLate(MS); 5000]);
    let got = waiter.await.unwrap();
    let n = backend.calls(Operation::Acquire).len();
    assert!(n < 20, "{n} attempts, {got:?}", got = got.is_ok());
    drop(overslept);
}

// same, another process has the key meanwhile
#[tokio::test(start_paused = true)]
async fn r1b_no_hot_loop_when_another_process_has_it() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    let overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let other = LockManager::new(backend.clone());
    let _other = other.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.next(Operation::Acquire, vec![Fault::ReplyLate(MS); 50000]);
    let got = locks.lock("key").acquire().await;
    let n = backend.calls(Operation::Acquire).len();
    assert!(n < 20, "{n} attempts, {}", got.is_ok());
    drop(overslept);
}

#[tokio::test(start_paused = true)]
async fn r2_a_place_of_an_old_line_takes_nobody_out_of_the_new_one() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    // An heir that is polled late.
    let mut heir = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(heir.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    backend.next(Operation::HandOver, [Fault::Late(10 * MS)]);
    backend.next(Operation::Release, [Fault::Late(20 * MS)]);
    tokio::select! {
        biased;
        _ = held.release() => panic!("it takes longer"),
        () = sleep(MS) => {}
    }
    // The hand-over comes through, then the release that went on in the background.
    sleep(50 * MS).await;
    let mut line = Vec::new();
    for _ in 0..2 {
        line.push(Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire()));
        sleep(MS).await;
    }
    assert_eq!(locks.waiters(), 2);
    let guard = heir.await.unwrap();
    guard.release().await.unwrap();
    for next in line {
        let got = tokio::time::timeout(60_000 * MS, next).await;
        got.expect("stands in no line and is never served")
            .unwrap()
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn r2b_an_heir_that_sleeps_past_its_ttl() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut heir = Box::pin(locks.lock("key").ttl(300 * MS).wait(HOUR).acquire());
    assert!(heir.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    held.release().await.unwrap();
    sleep(2_000 * MS).await; // its lease is over
    locks.lock("key").ttl(HOUR).acquire().await.unwrap().release().await.unwrap();
    let other = LockManager::new(backend.clone());
    let o = other.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut line = Vec::new();
    for _ in 0..2 {
        line.push(Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire()));
        sleep(MS).await;
    }
    drop(heir);
    o.release().await.unwrap();
    for next in line {
        let got = tokio::time::timeout(60_000 * MS, next).await;
        got.expect("stands in no line and is never served")
            .unwrap()
            .unwrap()
            .release()
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn r3_a_lost_lease_leaves_no_line() {
    let locks = LockManager::new(Spoilt::with_hand_over());
    let g = locks.lock("one").ttl(300 * MS).acquire().await.unwrap();
    g.lost().await;
    g.detach();
    let shown = format!("{locks:?}");
    assert!(shown.contains("lines: Lines(Mutex { data: {},"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn r3b_a_lost_lease_whose_release_fails_leaves_no_line() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    let g = locks.lock("one").ttl(300 * MS).acquire().await.unwrap();
    g.lost().await;
    backend.next(Operation::Release, [Fault::Refused(ErrorCode::ServiceUnavailable); 9]);
    drop(g);
    locks.shutdown().await.unwrap();
    let shown = format!("{locks:?}");
    assert!(shown.contains("lines: Lines(Mutex { data: {},"), "{shown}");
}

#[test]
fn r4_a_hint_survives_the_runtime_of_whom_it_came_from() {
    let build = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (one, two) = (build(), build());
    let backend = Spoilt::with_hints_and_hand_over();
    let other = LockManager::new(backend.clone());
    let locks = LockManager::new(backend.clone());
    let held = two.block_on(async { other.lock("key").ttl(HOUR).acquire().await.unwrap() });
    one.block_on(async {
        drop(Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire()));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    });
    let second = two.spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    two.block_on(async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(locks.waiters(), 2);
    drop(one);
    two.block_on(async {
        sleep(10 * MS).await;
        held.release().await.unwrap();
        second.await.unwrap().unwrap().release().await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn r5_shutdown_waits_for_a_lease_that_was_handed_to_one_who_leaves() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    sleep(MS).await;
    backend.next(Operation::Release, [Fault::Late(10 * MS); 3]);
    drop(held);
    locks.shutdown().await.unwrap();
    assert!(!locks.is_locked("key").await.unwrap(), "held by nobody after shutdown");
    assert!(waiter.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn r5b_shutdown_waits_for_a_lease_that_was_handed_to_one_who_leaves() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut waiter = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(held);
    let done = locks.shutdown().await;
    assert!(
        done.is_err() || !locks.is_locked("key").await.unwrap(),
        "held by nobody after shutdown"
    );
    drop(waiter);
}

// Plain tasks on several threads; every waiter was told Aborted.
#[test]
fn r5c_stress() {
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let mut hits = 0;
    for _ in 0..5000 {
        let backend = Spoilt::with_hand_over();
        hits += rt.block_on(async {
            let locks = LockManager::new(backend.clone());
            let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
            let waiter = Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
            while locks.waiters() < 1 {
                tokio::task::yield_now().await;
            }
            drop(held);
            locks.shutdown().await.unwrap();
            let held = locks.is_locked("key").await.unwrap();
            usize::from(held && waiter.await.unwrap().is_err())
        });
    }
    assert_eq!(hits, 0, "of 5000");
}

#[tokio::test(start_paused = true)]
async fn r7_an_attempt_after_a_head_start_is_no_retry() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let w = Handle::current().spawn(
        locks
            .lock("key")
            .ttl(HOUR)
            .wait(HOUR)
            .max_retries(1)
            .backoff(Backoff::fixed(5_000 * MS))
            .acquire(),
    );
    sleep(2_000 * MS).await;
    // the first attempt is not even made yet
    let other = LockManager::new(backend.clone());
    held.release().await.unwrap();
    let o = other.lock("key").ttl(HOUR).acquire().await.unwrap();
    sleep(60_000 * MS).await;
    drop(o);
    let _ = w.await.unwrap().map(drop);
    eprintln!("attempts {:?}", backend.calls(Operation::Acquire).len());
}

// the next is told of what an undo frees
#[tokio::test(start_paused = true)]
async fn r8_an_undo_tells_the_next() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, [Fault::ReplyLost]);
    backend.next(Operation::Release, [Fault::Late(5 * MS)]);
    let first = Handle::current().spawn(locks.lock("key").ttl(HOUR).max_retries(0).acquire());
    sleep(0 * MS).await;
    let next = Handle::current().spawn(
        locks.lock("key").ttl(HOUR).wait(HOUR).backoff(Backoff::fixed(10_000 * MS)).acquire(),
    );
    let start = Instant::now();
    assert!(first.await.unwrap().is_err());
    next.await.unwrap().unwrap().release().await.unwrap();
    let took = millis(start, Instant::now());
    assert!(took < 100, "slept {took} ms beside a free key");
}

#[allow(unused)]
fn unused() {
    let _ = (pin!(async {}), Poll::Ready(()));
}

// After its first own attempt, an attempt that a release called for ends the wait.
#[tokio::test(start_paused = true)]
async fn r7b_an_attempt_that_a_release_called_for_is_no_retry() {
    for hold in [500 * MS, 2_000 * MS] {
        let backend = Spoilt::new();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let begun = Instant::now();
        let w = Handle::current().spawn(
            locks
                .lock("key")
                .ttl(HOUR)
                .wait(HOUR)
                .max_retries(1)
                .backoff(Backoff::fixed(hold / 2 + hold).with_jitter(syncguard::Jitter::None))
                .acquire(),
        );
        // first attempt at 1.5 * hold, the retry at 3 * hold; released at 2 * hold.
        sleep(hold * 2).await;
        backend.next(Operation::Acquire, [Fault::None]);
        held.release().await.unwrap();
        let _o = LockManager::new(backend.clone()).lock("key").ttl(HOUR).acquire().await.unwrap();
        assert!(w.await.unwrap().is_err());
        eprintln!(
            "hold {hold:?}: gave up after {} ms, attempts {}",
            millis(begun, Instant::now()),
            backend.calls(Operation::Acquire).len() - 2
        );
    }
}

#[tokio::test(start_paused = true)]
async fn r6_a_streak_in_a_new_line_ends_too() {
    let backend = Spoilt::with_hand_over();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let mut heir = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
    assert!(heir.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    backend.next(Operation::HandOver, [Fault::Late(10 * MS)]);
    backend.next(Operation::Release, [Fault::Late(20 * MS)]);
    tokio::select! {
        biased;
        _ = held.release() => panic!("it takes longer"),
        () = sleep(MS) => {}
    }
    sleep(50 * MS).await;
    let guard = heir.await.unwrap(); // so that it is not bug 2
    let others = LockManager::new(backend.clone());
    let other = Handle::current().spawn(
        others
            .lock("key")
            .ttl(HOUR)
            .wait(HOUR)
            .backoff(Backoff::fixed(20 * MS).with_jitter(syncguard::Jitter::None))
            .acquire(),
    );
    let mut line = Vec::new();
    for _ in 0..400 {
        line.push(Handle::current().spawn(locks.lock("key").ttl(HOUR).wait(HOUR).acquire()));
        tokio::task::yield_now().await;
    }
    sleep(7 * MS).await;
    guard.release().await.unwrap();
    let hog = Handle::current().spawn(async move {
        for waiter in line {
            let guard = waiter.await.unwrap().unwrap();
            sleep(30 * MS).await;
            guard.release().await.unwrap();
        }
    });
    let guard = other.await.unwrap().unwrap();
    assert!(guard.fence().get() < 60, "not at the first chance: {}", guard.fence());
    guard.release().await.unwrap();
    hog.await.unwrap();
}

// A waker runs under the mutex of the lines.
#[test]
fn r10_a_waker_may_ask_the_manager() {
    struct Asks(LockManager);
    impl std::task::Wake for Asks {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.waiters();
        }
    }
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async {
            let locks = LockManager::new(Spoilt::with_hand_over());
            let held = locks.lock("key").acquire().await.unwrap();
            let waker = Waker::from(std::sync::Arc::new(Asks(locks.clone())));
            let mut w = Box::pin(locks.lock("key").acquire());
            assert!(w.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            held.release().await.unwrap();
        });
        done.send(()).unwrap();
    });
    wait.recv_timeout(Duration::from_secs(3)).expect("deadlock");
}

// Streak: a release lost to another process goes on with the streak of before.
#[tokio::test(start_paused = true)]
async fn r9_interest_changes_do_not_grow() {
    let interests = syncguard::Interests::new();
    for _ in 0..100_000 {
        drop(interests.register("key"));
    }
    let n = interests.changes().await.len();
    assert!(n < 10, "{n} entries");
}

#[tokio::test(start_paused = true)]
async fn r11_every_unanswered_attempt_is_undone() {
    let backend = Spoilt::new();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, [Fault::LandsLate(3 * MS), Fault::LandsLate(30 * MS)]);
    let request = locks.lock("key").ttl(HOUR).max_retries(1).backoff(Backoff::fixed(10 * MS));
    assert!(request.acquire().await.is_err());
    sleep(60_000 * MS).await;
    assert!(!locks.is_locked("key").await.unwrap(), "held by nobody");
}

//! W6-W8 and W10: the line of those who wait for one key in one process, on a clock that stands
//! still.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use support::line::{
    HOUR, MS, assert_no_line_remains, cancellable, patient, served_in_order, waiter, waiters,
};
use support::{LOSE_REPLY, millis, plain, with_handoff, with_notifications_and_handoff};
use syncguard::{Backend, Backoff, CancellationToken, ErrorCode, Jitter, LockManager, Operation};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn w6_first_come_first_served() {
    for backend in [plain(), with_handoff(), with_notifications_and_handoff()] {
        let locks = LockManager::new(backend);
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let line = waiters(&locks, 40).await;
        assert_eq!(locks.waiters(), 40);
        let start = Instant::now();
        held.release().await.unwrap();
        let fences = served_in_order(line).await;
        assert!(millis(start, Instant::now()) < 5, "nobody waits for a timer");
        assert_eq!(fences, Vec::from_iter(2..=41));
        assert_eq!(locks.waiters(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn w6_only_the_first_in_line_asks() {
    let asked_by = async |backend: FaultyBackend, how_many| {
        let other = LockManager::new(backend.clone());
        let _held = other.lock("key").ttl(HOUR).acquire().await.unwrap();
        let locks = LockManager::new(backend.clone());
        let line = waiters(&locks, how_many).await;
        sleep(60_000 * MS).await;
        assert_eq!(
            backend.registrations(),
            usize::from(backend.capabilities().receives_notifications())
        );
        line.iter().for_each(JoinHandle::abort);
        sleep(MS).await;
        assert_eq!(backend.registrations(), 0);
        backend.count(Operation::Acquire)
    };
    for backend in [plain, with_notifications_and_handoff] {
        let (one, many) = (asked_by(backend(), 1).await, asked_by(backend(), 1_000).await);
        assert!(many.abs_diff(one) <= 2, "{many} attempts of a thousand, {one} of one");
    }
}

#[tokio::test(start_paused = true)]
async fn w3_behind_an_own_guard_whose_time_is_up_nobody_asks_in_a_tight_loop() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    // Nobody asks whether it is lost, so nothing but its deadline tells that its time is up.
    let _overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    // The clock would stand still in a loop of attempts that take no time.
    backend.next_n(Operation::Acquire, 5_000, Fault::DelayReply(MS));
    let guard = locks.lock("key").acquire().await.unwrap();
    assert_eq!(guard.fence().get(), 2);
    let attempts = backend.count(Operation::Acquire);
    assert!(attempts < 20, "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn w3_nobody_asks_in_a_tight_loop_where_another_process_took_over() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let _overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let others = LockManager::new(backend.clone());
    let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
    backend.next_n(Operation::Acquire, 5_000, Fault::DelayReply(MS));
    let error = locks.lock("key").acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
    let attempts = backend.count(Operation::Acquire);
    assert!(attempts < 20, "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn w3_nobody_asks_when_a_lease_that_was_to_end_was_extended() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(300 * MS).keep_alive().acquire().await.unwrap();
    let waiter = patient(&locks, &CancellationToken::new());
    sleep(20_000 * MS).await;
    // Its back-off is one of 5 to 10 s, and the end of the lease was moved 200 times.
    let attempts = backend.count(Operation::Acquire) - 1;
    assert!(attempts <= 4, "{attempts}");
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn w6_a_late_release_does_not_hide_who_holds_the_key_by_now() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let overslept = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    sleep(2_000 * MS).await;
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let waiter = patient(&locks, &CancellationToken::new());
    sleep(10 * MS).await;
    let asked = backend.count(Operation::Acquire);
    assert!(!overslept.release().await.unwrap());
    sleep(10 * MS).await;
    assert_eq!(backend.count(Operation::Acquire), asked, "behind a guard of this manager");
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(backend.count(Operation::Handoff), 1);
}

#[test]
fn w6_whoever_is_woken_may_look_at_the_manager() {
    struct Nosy(LockManager);
    impl std::task::Wake for Nosy {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.waiters(), 0, "it was served");
        }
    }
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let locks = LockManager::new(with_handoff());
            let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
            let waker = Arc::new(Nosy(locks.clone())).into();
            let mut waits = Box::pin(locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
            assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            held.release().await.unwrap();
            done.send(()).unwrap();
        });
    });
    // A deadlock would never end.
    ended.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn w7_whoever_leaves_holds_up_nobody() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let (first, third) = (CancellationToken::new(), CancellationToken::new());
    let leaves = cancellable(&locks, &first).await;
    let second = waiter(&locks).await;
    let leaves_too = cancellable(&locks, &third).await;
    let dropped = waiter(&locks).await;
    let last = waiter(&locks).await;
    first.cancel();
    third.cancel();
    dropped.abort();
    for gone in [leaves, leaves_too] {
        assert_eq!(gone.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    }
    assert!(dropped.await.unwrap_err().is_cancelled());
    held.release().await.unwrap();
    assert_eq!(served_in_order(vec![second, last]).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn w7_whoever_leaves_in_the_middle_of_an_attempt_passes_on_what_it_brings() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::DelayRequest(700 * MS));
    let first = CancellationToken::new();
    let leaves = cancellable(&locks, &first).await;
    sleep(MS).await;
    first.cancel();
    assert_eq!(leaves.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);

    // The next one finds the key free, and keeps it although the other attempt comes through.
    let guard = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 1).await;
    sleep(800 * MS).await;
    assert!(!guard.is_lost());
    guard.release().await.unwrap();
    assert_eq!(served_in_order(line).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn w7_a_panic_of_the_first_in_line_does_not_hold_up_the_next() {
    let backend = with_handoff();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, Fault::Panic);
    let first = Handle::current().spawn(locks.lock("key").acquire());
    let line = Handle::current().spawn(locks.lock("key").acquire());
    assert!(first.await.unwrap_err().is_panic());
    let line = vec![line];
    served_in_order(line).await;
}

#[tokio::test(start_paused = true)]
async fn w7_shutdown_ends_all_who_stand_in_line() {
    let locks = LockManager::new(with_handoff());
    let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let line = waiters(&locks, 5).await;
    locks.shutdown().await.unwrap();
    for waiter in line {
        assert_eq!(waiter.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    }
    assert_eq!(locks.waiters(), 0);
    assert!(held.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn w7_what_undoes_an_attempt_tells_the_next() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next(Operation::Acquire, LOSE_REPLY);
    backend.next(Operation::Release, Fault::DelayRequest(5 * MS));
    assert!(locks.lock("key").ttl(HOUR).max_retries(0).acquire().await.is_err());
    // It finds the key held by an attempt that nobody knows of.
    let start = Instant::now();
    let next = patient(&locks, &CancellationToken::new());
    next.await.unwrap().unwrap().release().await.unwrap();
    let took = millis(start, Instant::now());
    assert!(took < 100, "it slept for {took} ms beside a free key");
}

#[tokio::test(start_paused = true)]
async fn w8_the_limit_counts_from_the_call() {
    for moves_up in [false, true] {
        let locks = LockManager::new(plain());
        let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let line = waiters(&locks, 3).await;
        let start = Instant::now();
        let (outcome, ()) = tokio::join!(locks.lock("key").wait(300 * MS).acquire(), async {
            sleep(150 * MS).await;
            if moves_up {
                line.iter().for_each(JoinHandle::abort);
            }
        });
        assert_eq!(outcome.unwrap_err().code(), ErrorCode::AcquisitionTimeout);
        assert_eq!(millis(start, Instant::now()), 300, "moves up: {moves_up}");
    }
}

#[tokio::test(start_paused = true)]
async fn w8_those_behind_are_told_how_the_first_one_failed() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    backend.next_n(Operation::Acquire, 99, Fault::Fail(ErrorCode::ServiceUnavailable));
    let _line = waiters(&locks, 1).await;
    let error = locks.lock("key").wait(300 * MS).acquire().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn w8_an_attempt_that_a_release_calls_for_is_no_retry() {
    // Before the first attempt of one's own, and after it.
    for released_after in [2_000 * MS, 6_000 * MS] {
        let backend = plain();
        let locks = LockManager::new(backend.clone());
        let held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
        let start = Instant::now();
        let request = locks.lock("key").wait(HOUR).max_retries(1);
        let every_five_seconds = Backoff::fixed(5_000 * MS).with_jitter(Jitter::None);
        let waiter = Handle::current().spawn(request.backoff(every_five_seconds).acquire());
        sleep(released_after).await;
        held.release().await.unwrap();
        // It is faster than the waiter, who has not even run.
        let others = LockManager::new(backend.clone());
        let _held = others.lock("key").ttl(HOUR).acquire().await.unwrap();
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::AcquisitionTimeout);
        let gave_up = millis(start, Instant::now());
        assert!((10_000..10_020).contains(&gave_up), "after {gave_up} ms");
        // Two are those of the holders.
        assert_eq!(backend.count(Operation::Acquire), 2 + 3, "{released_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn w10_a_manager_tells_how_many_wait_for_whatever_key() {
    let locks = LockManager::new(plain());
    let _held = locks.lock("key").ttl(HOUR).acquire().await.unwrap();
    let _other = locks.lock("other").ttl(HOUR).acquire().await.unwrap();
    assert_eq!(locks.waiters(), 0, "a holder does not wait");
    let line = waiters(&locks, 3).await;
    let other = Handle::current().spawn(locks.lock("other").wait(HOUR).acquire());
    sleep(MS).await;
    assert_eq!(locks.waiters(), 4);
    line.iter().chain([&other]).for_each(JoinHandle::abort);
    sleep(MS).await;
    assert_eq!(locks.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_with_the_last_who_needs_it() {
    let locks = LockManager::new(with_handoff());
    locks.lock("one").acquire().await.unwrap().release().await.unwrap();
    locks.lock("two").acquire().await.unwrap().detach();
    assert!(locks.lock("two").max_retries(0).acquire().await.is_err());
    drop(locks.lock("three").acquire().await.unwrap());
    locks.lock("four").acquire().await.unwrap().detach();
    locks.shutdown().await.unwrap();
    assert_no_line_remains(&locks);
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_with_a_lease_that_was_lost() {
    let locks = LockManager::new(with_handoff());
    let guard = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    guard.lost().await;
    guard.detach();
    assert_no_line_remains(&locks);
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_although_the_release_fails() {
    let backend = plain();
    let locks = LockManager::new(backend.clone());
    let guard = locks.lock("key").ttl(300 * MS).acquire().await.unwrap();
    guard.lost().await;
    backend.next_n(Operation::Release, 9, Fault::Fail(ErrorCode::ServiceUnavailable));
    drop(guard);
    locks.shutdown().await.unwrap();
    assert_no_line_remains(&locks);
}

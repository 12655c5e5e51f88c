//! Several threads, and the thread that works in the background.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use syncguard::blocking::LockManager;
use syncguard::{CancellationToken, Error, ErrorCode, Operation};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend};

use super::{HOUR, MS, code, eventually, inside_a_runtime, locks, locks_on};

#[test]
fn h4_renewals_go_on_while_the_thread_of_the_holder_blocks() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = locks_on(backend.clone());
    let ttl = 1_200 * MS;
    let kept = locks.lock("kept").ttl(ttl).keep_alive().acquire().unwrap();
    let ran = locks.lock("run").ttl(ttl).run(|lock| {
        thread::sleep(2 * ttl);
        assert!(!lock.is_lost());
        Ok::<_, Error>(lock.fence())
    });
    assert_eq!(ran.unwrap().get(), 1);
    assert!(kept.release().unwrap());
    assert!(backend.count(Operation::Extend) >= 4);
}

#[test]
fn h4_a_renewal_notices_the_loss_while_the_holder_waits_for_it() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let locks = locks_on(backend.clone());
    let guard = locks.lock("key").ttl(600 * MS).keep_alive().acquire().unwrap();
    assert!(!guard.wait_lost(MS).unwrap());
    assert!(inside_a_runtime(async || backend.lose_lease("key").await).unwrap());
    assert!(guard.wait_lost(HOUR).unwrap());
    assert!(guard.is_lost() && guard.remaining().is_zero());
    assert_eq!(code(guard.extend(HOUR)), ErrorCode::Lost);
}

#[test]
fn threads_exclude_each_other_and_are_served_from_one_queue() {
    let locks = locks();
    let (busy, grants) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let guard = locks.lock("key").ttl(HOUR).wait(HOUR).acquire().unwrap();
                    assert!(!busy.swap(true, Ordering::SeqCst), "two threads hold the key");
                    thread::yield_now();
                    busy.store(false, Ordering::SeqCst);
                    grants.fetch_add(1, Ordering::Relaxed);
                    guard.release().unwrap();
                }
            });
        }
    });
    assert_eq!((grants.into_inner(), locks.waiters()), (100, 0));
}

#[test]
fn a_dropped_guard_passes_the_lock_to_a_thread_that_waits() {
    let locks = locks();
    let held = locks.lock("key").ttl(HOUR).acquire().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| locks.lock("key").ttl(HOUR).wait(HOUR).acquire());
        eventually("the thread waits", || locks.waiters() == 1);
        drop(held);
        assert_eq!(waiter.join().unwrap().unwrap().fence().get(), 2);
    });
}

#[test]
fn shutdown_and_a_token_end_the_wait_of_a_thread() {
    let locks = locks();
    let held = locks.lock("key").ttl(HOUR).acquire().unwrap();
    let token = CancellationToken::new();
    let request = locks.lock("key").wait(HOUR);
    thread::scope(|scope| {
        let cancelled = scope.spawn(|| request.clone().cancel(token.clone()).acquire());
        let waiter = scope.spawn(|| request.clone().acquire());
        eventually("both threads wait", || locks.waiters() == 2);
        token.cancel();
        assert_eq!(code(cancelled.join().unwrap()), ErrorCode::Aborted);
        locks.shutdown().unwrap();
        assert_eq!(code(waiter.join().unwrap()), ErrorCode::Aborted);
    });
    assert_eq!(code(locks.lock("other").acquire()), ErrorCode::Aborted);
    assert!(held.release().unwrap());
}

#[test]
fn shutdown_finishes_releases_and_reports_those_that_hang() {
    let backend = FaultyBackend::new(MemoryBackend::new());
    let connect = async { Ok(backend.clone()) };
    let locks = LockManager::connect_with(connect, |options| options.shutdown_limit(50 * MS));
    let locks = locks.unwrap();
    backend.next(Operation::Release, Fault::DelayRequest(10 * MS));
    drop(locks.lock("key").ttl(HOUR).acquire().unwrap());
    locks.shutdown().unwrap();
    assert!(!locks.is_locked("key").unwrap());

    let backend = FaultyBackend::new(MemoryBackend::new());
    let connect = async { Ok(backend.clone()) };
    let locks = LockManager::connect_with(connect, |options| options.shutdown_limit(50 * MS));
    let locks = locks.unwrap();
    backend.next(Operation::Release, Fault::Hang);
    drop(locks.lock("key").ttl(HOUR).acquire().unwrap());
    assert_eq!(code(locks.shutdown()), ErrorCode::NetworkTimeout);
}

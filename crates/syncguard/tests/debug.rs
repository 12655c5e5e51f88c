//! `Debug` of a manager, a request and a guard: one line, and no lock that the caller may hold.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use support::{plain, with_handoff};
use syncguard::{LockGuard, LockManager};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

type Waiting = Pin<Box<dyn Future<Output = syncguard::Result<LockGuard>> + Send>>;

fn waiting(locks: &LockManager) -> Waiting {
    Box::pin(locks.lock("a secret").ttl(HOUR).wait(HOUR).acquire())
}

fn assert_one_line(text: &str, expected: &[&str]) {
    assert!(!text.contains('\n') && text.len() < 400, "{} bytes: {text}", text.len());
    assert!(!text.contains("a secret"), "the key in clear: {text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_a_request_and_a_guard_print_one_line() {
    let locks = LockManager::new(plain());
    let key = syncguard::Fingerprint::of("a secret").to_string();
    let request = locks.lock("a secret").ttl(90 * MS);
    assert_one_line(&format!("{request:?}"), &["LockRequest", &key, "90ms"]);
    let guard = request.acquire().await.unwrap();
    sleep(40 * MS).await;
    let expected = ["LockGuard", &key, &guard.fence().to_string(), "50ms"];
    assert_one_line(&format!("{guard:?}"), &expected);
    assert_one_line(&format!("{locks:?}"), &["LockManager", "waiters: 0", "keys: 1"]);
    assert!(guard.release().await.unwrap());
    assert_one_line(&format!("{locks:?}"), &["LockManager", "waiters: 0", "keys: 0"]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_waiters_print_one_line() {
    let locks = LockManager::new(with_handoff());
    let guard = locks.lock("a secret").ttl(HOUR).acquire().await.unwrap();
    let mut waiters: Vec<_> = (0..10_000).map(|_| waiting(&locks)).collect();
    for waiter in &mut waiters {
        assert!(waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_one_line(&format!("{locks:?}"), &["waiters: 10000", "keys: 1"]);
    assert_one_line(&format!("{guard:?}"), &["LockGuard"]);
    drop(waiters);
    assert_one_line(&format!("{locks:?}"), &["waiters: 0", "keys: 1"]);
}

/// Prints the manager, and joins its queue, whenever it is cloned for, woken by or dropped by it.
struct Reentrant {
    locks: LockManager,
    printed: Arc<Mutex<Vec<String>>>,
    /// Dropped with the last clone of the waker: it leaves the queue.
    waiting: Mutex<Option<Waiting>>,
}

impl Reentrant {
    fn waker(locks: &LockManager, printed: &Arc<Mutex<Vec<String>>>) -> Waker {
        let mut waiting = waiting(locks);
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waiting = Mutex::new(Some(waiting));
        Waker::from(Arc::new(Self { locks: locks.clone(), printed: printed.clone(), waiting }))
    }
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.printed.lock().unwrap().push(format!("{:?}", self.locks));
        // It leaves one queue, and joins another.
        drop(self.waiting.lock().unwrap().take());
        let mut other = Box::pin(self.locks.lock("a secret").acquire());
        let _ = other.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Runs it on a thread of its own, because a deadlock would hang the test for ever.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        test();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => thread.join().unwrap(),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

#[test]
fn a_waker_may_use_the_manager() {
    ends(|| {
        let locks = LockManager::new(plain());
        let printed = Arc::new(Mutex::new(Vec::new()));
        let mut holder = waiting(&locks);
        let mut context = Context::from_waker(Waker::noop());
        let std::task::Poll::Ready(Ok(guard)) = holder.as_mut().poll(&mut context) else {
            panic!("the key is free");
        };
        let mut waiter = waiting(&locks);
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        let waker = Reentrant::waker(&locks, &printed);
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // The release wakes the first waiter.
        let mut release = Box::pin(guard.release());
        assert!(release.as_mut().poll(&mut context).is_ready());
        let printed = printed.lock().unwrap();
        assert_eq!(printed.len(), 1);
        assert_one_line(&printed[0], &["keys: 1"]);
    });
}

#[test]
fn a_waker_that_is_replaced_may_leave_a_queue() {
    ends(|| {
        let locks = LockManager::new(plain());
        let printed = Arc::new(Mutex::new(Vec::new()));
        let mut holder = waiting(&locks);
        let mut context = Context::from_waker(Waker::noop());
        let std::task::Poll::Ready(Ok(_guard)) = holder.as_mut().poll(&mut context) else {
            panic!("the key is free");
        };
        let _first = {
            let mut first = waiting(&locks);
            assert!(first.as_mut().poll(&mut context).is_pending());
            first
        };
        let mut waiter = waiting(&locks);
        let waker = Reentrant::waker(&locks, &printed);
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(locks.waiters(), 3);
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        assert_eq!(locks.waiters(), 2);
        // It also may, if its waiter leaves.
        let waker = Reentrant::waker(&locks, &printed);
        assert!(waiter.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(locks.waiters(), 3);
        drop(waiter);
        assert_eq!(locks.waiters(), 1);
    });
}

//! The blocking front end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod runtime;
mod threads;
mod verbs;

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use syncguard::blocking::LockManager;
use syncguard::{Backend, ErrorCode, Result};
use syncguard_memory::MemoryBackend;
use tokio::runtime::Builder;

const MS: Duration = Duration::from_millis(1);
/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

fn locks_on<B: Backend>(backend: B) -> LockManager {
    LockManager::connect(async { Ok(backend) }).unwrap()
}

fn locks() -> LockManager {
    locks_on(MemoryBackend::new())
}

/// A runtime of the caller's own, with one thread.
fn inside_a_runtime<T>(work: impl AsyncFnOnce() -> T) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

/// Waits for what another thread does, but not for ever.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        thread::sleep(5 * MS);
    }
    panic!("not within 10 s: {what}");
}

fn code<T: Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

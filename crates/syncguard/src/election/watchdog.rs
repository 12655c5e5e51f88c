//! Aborts the process if work outlives its lease: a thread of its own, which no task can block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::time::Instant;

use crate::lease::HeldLease;

/// Watches one lease until it is dropped.
pub(super) struct Watchdog {
    stopped: Arc<AtomicBool>,
    thread: Thread,
}

/// How long the log may take before the process is aborted.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Watchdog {
    pub(super) fn start(lease: &Arc<HeldLease>) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let (watched, lease) = (stopped.clone(), lease.clone());
        let thread = thread::Builder::new()
            .name("syncguard-watchdog".to_owned())
            .spawn(move || watch(&watched, &lease))
            .map_err(|source| {
                Error::new(ErrorCode::Internal, Operation::Campaign)
                    .with_message("the thread that watches the deadline could not be started")
                    .with_source(source)
            })?;
        Ok(Self { stopped, thread: thread.thread().clone() })
    }

    /// The work has ended.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn watch(stopped: &AtomicBool, lease: &Arc<HeldLease>) {
    while !stopped.load(Ordering::Acquire) {
        let left = lease.deadline().saturating_duration_since(Instant::now());
        if left.is_zero() {
            abort(lease.clone());
        }
        thread::park_timeout(left);
    }
}

fn abort(lease: Arc<HeldLease>) -> ! {
    // The work may hold what the log needs, such as the lock of the standard output.
    let last_words = move || {
        let (key, fence) = (lease.granted().key().fingerprint(), lease.granted().fence());
        tracing::error!(%key, %fence, "the work of a leader outlived its lease: the process is aborted");
    };
    if thread::Builder::new().spawn(last_words).is_ok() {
        thread::sleep(LAST_WORDS);
    }
    std::process::abort()
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop();
    }
}

//! Aborts the process if work outlives its lease: a thread of its own, which no task can block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::time::Instant;

use crate::lease::HeldLease;

/// Watches one lease until it is dropped.
pub(super) struct Watchdog {
    stopped: Arc<AtomicBool>,
    thread: Thread,
}

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
}

fn watch(stopped: &AtomicBool, lease: &HeldLease) {
    while !stopped.load(Ordering::Acquire) {
        let now = Instant::now();
        if lease.is_over(now) {
            tracing::error!(
                key = %lease.granted().key().fingerprint(),
                fence = %lease.granted().fence(),
                "the work of a leader outlived its lease: the process is aborted"
            );
            std::process::abort();
        }
        thread::park_timeout(lease.deadline() - now);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

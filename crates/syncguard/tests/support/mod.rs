//! Backends for the tests of the runtime, and the queue of waiters for one key.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test files, each of which uses a part; a test may panic"
)]

pub mod block_on;
pub mod log;
pub mod threads;
pub mod waiters;

use std::time::Duration;

use syncguard::{ErrorCode, Operation};
use syncguard_memory::{Fault, FaultyBackend, MemoryBackend};
use tokio::time::Instant;

/// The backend acts, but its reply is lost.
pub const LOSE_REPLY: Fault = Fault::LoseReply(ErrorCode::NetworkTimeout);

/// Without notifications and without handoff, so that waiters depend on their timers.
pub fn plain() -> FaultyBackend {
    with_handoff().without_handoff()
}

pub fn with_handoff() -> FaultyBackend {
    with_notifications_and_handoff().without_notifications()
}

pub fn with_notifications_and_handoff() -> FaultyBackend {
    FaultyBackend::new(MemoryBackend::new())
}

/// The same backend for a process whose acquire requests take longer to arrive.
pub fn farther_by(backend: &FaultyBackend, distance: Duration) -> FaultyBackend {
    let farther = FaultyBackend::new(backend.clone());
    farther.on_call(move |operation, _| match operation {
        Operation::Acquire => Fault::DelayRequest(distance),
        _ => Fault::None,
    });
    farther
}

/// Injects these faults into the next calls of the operation, one per call.
pub fn next_all(
    backend: &FaultyBackend,
    operation: Operation,
    faults: impl IntoIterator<Item = Fault>,
) {
    for fault in faults {
        backend.next(operation, fault);
    }
}

/// When the calls of this operation were made.
pub fn instants(backend: &FaultyBackend, operation: Operation) -> Vec<Instant> {
    backend.calls(operation).iter().map(|call| call.at()).collect()
}

/// Milliseconds between two moments.
pub fn millis(from: Instant, to: Instant) -> u128 {
    to.duration_since(from).as_millis()
}

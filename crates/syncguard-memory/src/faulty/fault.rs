//! The faults, and the record of a call.

use std::time::Duration;

use syncguard_core::{ErrorCode, LockId, Operation};
use tokio::time::Instant;

/// What happens to one call of a [`FaultyBackend`](crate::FaultyBackend).
///
/// Delays follow tokio's clock, so `tokio::time::pause` and `advance` move them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call reaches the wrapped backend, and its reply comes back.
    #[default]
    None,
    /// The call fails with this code. The wrapped backend is not called.
    Fail(ErrorCode),
    /// The call fails with this code, and no request was sent: there was no connection.
    FailUnsent(ErrorCode),
    /// The wrapped backend acts, but the caller gets this code: the reply was lost on the way.
    LoseReply(ErrorCode),
    /// The wrapped backend is called after this time.
    DelayRequest(Duration),
    /// The wrapped backend acts at once, and the caller gets the reply after this time.
    DelayReply(Duration),
    /// The wrapped backend is not called, and the call never ends.
    Hang,
    /// The call never ends, and no request is sent: it waits for a connection.
    HangUnsent,
    /// The wrapped backend is called after [`open`](crate::FaultyBackend::open).
    HoldRequest,
    /// The wrapped backend acts at once, and the caller gets the reply after
    /// [`open`](crate::FaultyBackend::open).
    HoldReply,
    /// The caller gets `NetworkTimeout` at once, and the wrapped backend acts after this time: a
    /// request that was under way when the connection broke.
    LandLate(Duration),
    /// The call panics: a backend with a bug.
    Panic,
}

/// What happens to the notifications of a [`FaultyBackend`](crate::FaultyBackend).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notifications {
    /// Every notification of the wrapped backend arrives.
    #[default]
    Passed,
    /// Every second notification is lost.
    Lossy,
    /// No notification arrives, although [`Capabilities`](syncguard_core::Capabilities) promises
    /// them: the connection is down, and nobody has noticed.
    Lost,
    /// A notification arrives at once, without a release.
    Spurious,
    /// A future of [`notified`](syncguard_core::Backend::notified) panics after 10 ms.
    Panic,
}

/// One call that a [`FaultyBackend`](crate::FaultyBackend) received.
#[derive(Clone, Debug)]
pub struct Call {
    operation: Operation,
    id: Option<LockId>,
    at: Instant,
}

impl Call {
    pub(super) fn now(operation: Operation, id: Option<LockId>) -> Self {
        Self { operation, id, at: Instant::now() }
    }

    /// The operation. `extend_by_id` counts as `Extend` and `release_by_id` as `Release`.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// The lock id of the call: for `Handoff` that of the receiver, for `Get` and `Published` none.
    #[must_use]
    pub const fn id(&self) -> Option<&LockId> {
        self.id.as_ref()
    }

    /// When the call was made.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }
}

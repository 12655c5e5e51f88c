//! The one event and span of a wait, even if its future is dropped (O3).

use syncguard_core::{ErrorCode, Key, LockId, Operation};
use tokio::time::Instant;
use tracing::{Span, debug_span, field};

use crate::event::Outcome;
use crate::observe::Observed;

/// Reports a wait when it is dropped.
pub(crate) struct WaitReport<'a> {
    backend: &'a Observed,
    key: &'a Key,
    started: Instant,
    pub(crate) span: Span,
    /// How many attempts were made.
    pub(crate) attempts: u32,
    /// None while the wait goes on.
    pub(crate) outcome: Option<Result<LockId, ErrorCode>>,
}

impl<'a> WaitReport<'a> {
    pub(crate) fn new(backend: &'a Observed, key: &'a Key, started: Instant) -> Self {
        let span = debug_span!(
            "syncguard.acquire",
            key = %key.fingerprint(),
            attempts = field::Empty,
            code = field::Empty,
        );
        Self { backend, key, started, span, attempts: 0, outcome: None }
    }
}

impl Drop for WaitReport<'_> {
    fn drop(&mut self) {
        self.span.record("attempts", self.attempts);
        // A wait whose future is dropped is cancelled by its caller.
        let outcome = self.outcome.take().unwrap_or(Err(ErrorCode::Aborted));
        let (outcome, id) = match outcome {
            Ok(id) => (Outcome::Done, Some(id)),
            Err(code) => {
                self.span.record("code", code.as_str());
                (Outcome::Failed(code), None)
            }
        };
        let (key, attempts) = (self.key, Some(self.attempts));
        self.backend.report(Operation::Wait, outcome, key, id.as_ref(), self.started, attempts);
    }
}

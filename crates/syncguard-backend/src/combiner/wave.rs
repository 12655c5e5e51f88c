//! A wave: an answer has woken several callers, and often each of them has more to do at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A task that is to run after the callers, and has not done so for longer, is on a runtime that nobody
/// drives or that has much to do. Nobody counts on it any more.
pub(super) const LONGEST: Duration = Duration::from_millis(1);

/// The waves of combiners that have the same callers.
#[derive(Clone, Default)]
pub(super) struct Waves(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    under_way: usize,
    /// When the last one began.
    begun: Option<Instant>,
}

impl Waves {
    /// Begins a wave, which ends when this is dropped.
    pub(super) fn begin(&self) -> Wave {
        let mut state = self.lock();
        state.under_way += 1;
        state.begun = Some(Instant::now());
        Wave(self.clone())
    }

    /// Whether callers that were answered are about to run.
    pub(super) fn any(&self, now: Instant) -> bool {
        let state = self.lock();
        let recent = |begun| now.saturating_duration_since(begun) <= LONGEST;
        state.under_way > 0 && state.begun.is_some_and(recent)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Wave(Waves);

impl Drop for Wave {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

//! The callers of combiners: how many there are, and whether an answer has just woken several of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A task that is to run after the callers, and has not done so for longer, is on a runtime that nobody
/// drives or that has much to do. Nobody counts on it any more.
pub(super) const LONGEST_WAVE: Duration = Duration::from_millis(1);

/// The callers that some combiners have in common.
#[derive(Clone, Default)]
pub(super) struct Callers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    count: usize,
    waves: usize,
    /// When the last wave began.
    begun: Option<Instant>,
}

impl Callers {
    /// Counts a caller until this is dropped.
    pub(super) fn enter(&self) -> Caller {
        self.lock().count += 1;
        Caller(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    /// Begins a wave, which ends when this is dropped: an answer wakes several callers, and often each of
    /// them has more to do at once.
    pub(super) fn begin_wave(&self) -> Wave {
        let mut state = self.lock();
        state.waves += 1;
        state.begun = Some(Instant::now());
        Wave(self.clone())
    }

    /// Whether callers that were answered are about to run.
    pub(super) fn any_wave(&self, now: Instant) -> bool {
        let state = self.lock();
        let recent = |begun| now.saturating_duration_since(begun) <= LONGEST_WAVE;
        state.waves > 0 && state.begun.is_some_and(recent)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Caller(Callers);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.lock().count -= 1;
    }
}

pub(super) struct Wave(Callers);

impl Drop for Wave {
    fn drop(&mut self) {
        self.0.lock().waves -= 1;
    }
}

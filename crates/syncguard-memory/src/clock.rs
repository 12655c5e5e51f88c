//! The clocks of the store: tokio's, or one that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use syncguard_core::Timestamp;
use tokio::time::Instant;

/// A clock that moves only when a test calls [`advance`](Self::advance). Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Creates a clock that shows an arbitrary time.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    /// Moves the clock forward, rounded down to whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        // The closure always returns a value, so this cannot fail.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock that the store reads.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Manual(ManualClock),
    /// The wall clock at the creation of the store, plus the time that passed on tokio's clock since.
    /// It never jumps, and it stops while a test pauses tokio's clock.
    Tokio {
        wall: Duration,
        start: Instant,
    },
}

impl Source {
    pub(crate) fn tokio() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::Tokio { wall, start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::Manual(clock) => clock.now(),
            Self::Tokio { wall, start } => {
                let now = *wall + start.elapsed();
                Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

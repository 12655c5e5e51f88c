//! The clocks of the store: tokio's, or one that a test moves by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use syncguard_core::Timestamp;
use tokio::time::Instant;

/// A clock that stands still until it is moved. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at an arbitrary time.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    /// Moves the clock forward, by whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        // The closure always returns a value, so this cannot fail.
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
    }

    /// The time it shows.
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

/// Where the store reads the time.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Manual(ManualClock),
    /// The wall clock as it stood when the store was made, moved on by tokio's monotonic clock: it
    /// never jumps, and it stands still where a test has paused time.
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

//! The settings of a request, as plain values: set on the manager for all, on a request for one.

use std::time::Duration;

use crate::Backoff;

/// The settings of a request. What is not set has the default of the library.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<Duration>,
    pub(crate) max_retries: Option<u32>,
    pub(crate) backoff: Backoff,
    pub(crate) keep_alive: Option<bool>,
    pub(crate) max_hold: Option<Duration>,
}

const DEFAULT_TTL: Duration = Duration::from_secs(30);
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 10;
/// A limit this far away is none, and can be added to any point in time.
const LONGEST_WAIT: Duration = Duration::from_secs(1 << 32);

impl Settings {
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl.unwrap_or(DEFAULT_TTL)
    }

    pub(crate) fn wait(&self) -> Duration {
        self.wait.unwrap_or(DEFAULT_WAIT).min(LONGEST_WAIT)
    }

    /// A wait limit of the caller's own is the only limit, unless both are set.
    pub(crate) const fn retries(&self) -> Option<u32> {
        match (self.max_retries, self.wait) {
            (None, None) => Some(DEFAULT_RETRIES),
            (retries, _) => retries,
        }
    }
}

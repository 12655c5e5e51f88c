//! When a listener task reconnects, and when it logs that no notifications arrive.

use std::mem;
use std::time::Duration;

/// The longest pause after the first failed session. Each further failure in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The limit to which pauses grow.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A session that stayed up this long counts as a success and resets the backoff.
const STEADY: Duration = Duration::from_secs(10);

/// Counts the failed sessions of a [`ListenerTask`](crate::ListenerTask): how long to pause before
/// the next one, and when to warn that no notifications arrive.
///
/// A session fails if it never worked, or if it ended less than 10 s after it began to work. Such a
/// short session costs more than it helps, because the next one subscribes to everything again. A
/// session that ends later is no failure: servers restart and credentials expire all the time.
///
/// ```
/// use std::time::Duration;
/// use syncguard_backend::ReconnectBackoff;
///
/// let mut backoff = ReconnectBackoff::new();
/// // This session worked for an hour: no reason for a warning.
/// assert!(!backoff.session_ended(Some(Duration::from_secs(3600))));
/// // This one never worked: log a warning, pause, and reconnect.
/// assert!(backoff.session_ended(None));
/// assert!(backoff.pause() <= Duration::from_millis(100));
/// // The next failure is not logged again, and its pause is longer.
/// assert!(!backoff.session_ended(None));
/// assert!(backoff.pause() >= Duration::from_millis(100));
/// ```
#[derive(Debug, Default)]
pub struct ReconnectBackoff {
    failures: u32,
    warned: bool,
}

impl ReconnectBackoff {
    /// Creates a backoff without failures.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0, warned: false }
    }

    /// Records that a session ended, and returns true if the caller must log a warning now.
    ///
    /// `worked_for` is the time during which the session received notifications, as far as the
    /// caller knows, or `None` if it never did. The warning is due at the first session that never
    /// worked, or at the second failure in a row. It is due once until a session succeeds.
    #[must_use]
    pub fn session_ended(&mut self, worked_for: Option<Duration>) -> bool {
        if worked_for.is_some_and(|lasted| lasted >= STEADY) {
            *self = Self::new();
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        // A single session that ends early is normal.
        let warn = worked_for.is_none() || self.failures > 1;
        warn && !mem::replace(&mut self.warned, true)
    }

    /// Returns the pause before the next session, with jitter.
    ///
    /// The pause is a random time between half of the longest pause and all of it. The longest pause
    /// is 100 ms. It doubles with each failure in a row after the first, up to 30 s.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.longest_pause().mul_f64(fastrand::f64().midpoint(1.0))
    }

    fn longest_pause(&self) -> Duration {
        let doubled = self.failures.saturating_sub(1).min(16);
        FIRST_PAUSE.saturating_mul(1 << doubled).min(LAST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Option<Duration> = None;
    const SHORT: Option<Duration> = Some(Duration::from_secs(9));
    const LONG: Option<Duration> = Some(Duration::from_secs(10));

    /// Returns, after each session, whether a warning is due and the longest pause in milliseconds.
    fn after<const N: usize>(sessions: [Option<Duration>; N]) -> [(bool, u128); N] {
        let mut backoff = ReconnectBackoff::new();
        sessions.map(|worked_for| {
            (backoff.session_ended(worked_for), backoff.longest_pause().as_millis())
        })
    }

    #[test]
    fn w_the_first_session_that_never_works_is_one_warning() {
        let expected = [(true, 100), (false, 200), (false, 400), (false, 800)];
        assert_eq!(after([NEVER; 4]), expected);
        assert_eq!(after([NEVER; 100])[99], (false, 30_000));
    }

    #[test]
    fn w_the_second_session_in_a_row_that_ends_early_is_one_warning() {
        let expected = [(false, 100), (true, 200), (false, 400), (false, 800)];
        assert_eq!(after([SHORT; 4]), expected);
        assert_eq!(after([SHORT, NEVER, SHORT, NEVER]), expected);
    }

    #[test]
    fn w_a_session_that_works_for_long_resets_the_backoff() {
        assert_eq!(after([LONG; 3]), [(false, 100); 3]);
        assert_eq!(after([NEVER, NEVER, LONG, SHORT])[2..], [(false, 100), (false, 100)]);
        assert_eq!(after([SHORT, SHORT, LONG, NEVER])[2..], [(false, 100), (true, 100)]);
    }

    #[test]
    fn w_a_pause_is_at_least_half_of_the_longest() {
        let mut backoff = ReconnectBackoff::new();
        for longest in [100, 200, 400].map(Duration::from_millis) {
            let _ = backoff.session_ended(NEVER);
            let pauses: Vec<_> = (0..100).map(|_| backoff.pause()).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)));
            assert!(
                pauses.iter().any(|pause| *pause != pauses[0]),
                "no jitter: all clients reconnect at once"
            );
        }
    }
}

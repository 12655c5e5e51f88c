//! How long a notification task waits before its next session, and when it says that there is none.

use std::mem;
use std::time::Duration;

/// The longest pause after a session that failed. It doubles with each that follows without having
/// worked for long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of all.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A session that has worked for so long was none that failed.
const STEADY: Duration = Duration::from_secs(10);

/// The sessions of a [`ListenerTask`](crate::ListenerTask) that failed in a row: how long to pause before the
/// next, and when to warn that releases are not heard.
///
/// A session failed if it never worked, or worked for less than 10 s before it ended: then it was as
/// costly as it was useless, since the next one subscribes to everything anew. One that ends later did
/// not, since sessions end all the time: with their credentials, or with the server that they run on.
///
/// ```
/// use std::time::Duration;
/// use syncguard_backend::ReconnectBackoff;
///
/// let mut outage = ReconnectBackoff::new();
/// assert!(!outage.ended(Some(Duration::from_secs(3600)))); // it worked for an hour
/// assert!(outage.ended(None)); // it never worked: warn of it, and
/// assert!(outage.pause() <= Duration::from_millis(100)); // let this pass before the next
/// assert!(!outage.ended(None)); // again, which is known by now
/// assert!(outage.pause() >= Duration::from_millis(100)); // and the pauses grow
/// ```
#[derive(Debug, Default)]
pub struct ReconnectBackoff {
    failures: u32,
    warned: bool,
}

impl ReconnectBackoff {
    /// No session has failed.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0, warned: false }
    }

    /// Takes in that a session has ended of itself, and for how long it had worked, if it ever did:
    /// for how long it heard of releases, as far as was known. True if it is time to warn: at the first
    /// one in a row that never worked, or the second that ended early, and once until it is over.
    #[must_use]
    pub fn ended(&mut self, worked_for: Option<Duration>) -> bool {
        if worked_for.is_some_and(|lasted| lasted >= STEADY) {
            *self = Self::new();
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        // That one ends early may happen.
        let outage = worked_for.is_none() || self.failures > 1;
        outage && !mem::replace(&mut self.warned, true)
    }

    /// The pause before the next session: a random time between a half and all of 100 ms, which is
    /// doubled for each failure in a row after the first, up to 30 s.
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

    /// After each session: whether there is a warning, and the longest pause in milliseconds.
    fn after<const N: usize>(sessions: [Option<Duration>; N]) -> [(bool, u128); N] {
        let mut outage = ReconnectBackoff::new();
        sessions.map(|worked_for| (outage.ended(worked_for), outage.longest_pause().as_millis()))
    }

    #[test]
    fn w_sessions_that_do_not_work_are_an_outage() {
        let outage = [(true, 100), (false, 200), (false, 400), (false, 800)];
        assert_eq!(after([NEVER; 4]), outage);
        assert_eq!(after([NEVER; 100])[99], (false, 30_000));
    }

    #[test]
    fn w_sessions_that_end_early_are_an_outage_from_the_second_on() {
        let outage = [(false, 100), (true, 200), (false, 400), (false, 800)];
        assert_eq!(after([SHORT; 4]), outage);
        assert_eq!(after([SHORT, NEVER, SHORT, NEVER]), outage);
    }

    #[test]
    fn w_a_session_that_worked_for_long_ends_an_outage() {
        assert_eq!(after([LONG; 3]), [(false, 100); 3]);
        assert_eq!(after([NEVER, NEVER, LONG, SHORT])[2..], [(false, 100), (false, 100)]);
        assert_eq!(after([SHORT, SHORT, LONG, NEVER])[2..], [(false, 100), (true, 100)]);
    }

    #[test]
    fn w_at_least_half_of_a_pause_is_kept() {
        let mut outage = ReconnectBackoff::new();
        for longest in [100, 200, 400].map(Duration::from_millis) {
            let _ = outage.ended(NEVER);
            let pauses: Vec<_> = (0..100).map(|_| outage.pause()).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)));
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "all who lost it come at once");
        }
    }
}

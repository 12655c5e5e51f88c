//! How long to wait before the next stream, and when to say that there is none.

use std::mem;
use std::time::Duration;

/// The longest pause after a stream that broke. It doubles with each that follows without having
/// worked for long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of all, while the database cannot be listened to.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// A stream that has worked for so long was none that failed.
const STEADY: Duration = Duration::from_secs(10);

/// The streams that failed in a row.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    failures: u32,
    warned: bool,
}

impl Outage {
    /// Takes in that a stream has ended, and for how long it had worked, if it ever did. Tells whether
    /// this is an outage that nobody was warned of.
    ///
    /// Streams end all the time: with their credentials, or with the server that they run on. But what
    /// cuts each one early makes them as costly as they are useless: each listens to everything anew.
    pub(crate) fn begins(&mut self, worked_for: Option<Duration>) -> bool {
        if worked_for.is_some_and(|lasted| lasted >= STEADY) {
            *self = Self::default();
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        // That one ends early may happen.
        let outage = worked_for.is_none() || self.failures > 1;
        outage && !mem::replace(&mut self.warned, true)
    }

    /// The longest pause before the next stream.
    pub(crate) fn pause(&self) -> Duration {
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

    /// After each stream: whether there is a warning, and the pause in milliseconds.
    fn after<const N: usize>(streams: [Option<Duration>; N]) -> [(bool, u128); N] {
        let mut outage = Outage::default();
        streams.map(|worked_for| (outage.begins(worked_for), outage.pause().as_millis()))
    }

    #[test]
    fn w_streams_that_do_not_work_are_an_outage() {
        let outage = [(true, 100), (false, 200), (false, 400), (false, 800)];
        assert_eq!(after([NEVER; 4]), outage);
        assert_eq!(after([NEVER; 100])[99], (false, 30_000));
    }

    #[test]
    fn w_streams_that_end_early_are_an_outage_from_the_second_on() {
        let outage = [(false, 100), (true, 200), (false, 400), (false, 800)];
        assert_eq!(after([SHORT; 4]), outage);
        assert_eq!(after([SHORT, NEVER, SHORT, NEVER]), outage);
    }

    #[test]
    fn w_a_stream_that_worked_for_long_ends_an_outage() {
        assert_eq!(after([LONG; 3]), [(false, 100); 3]);
        assert_eq!(after([NEVER, NEVER, LONG, SHORT])[2..], [(false, 100), (false, 100)]);
        assert_eq!(after([SHORT, SHORT, LONG, NEVER])[2..], [(false, 100), (true, 100)]);
    }
}

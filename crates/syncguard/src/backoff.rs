//! How long a waiter pauses between two attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// How long a waiter pauses between two attempts.
///
/// # Default
///
/// 100 ms at first, doubled each time, with [`Jitter::Equal`].
///
/// Whatever the backoff says, a pause is at least 10 ms and at most 10 s. It is cut to the time that
/// the holder's lease still has, and to the time left to wait. After an attempt that failed, a pause
/// is at most 900 ms, so that waiting recovers with the server.
///
/// ```
/// use std::time::Duration;
/// use syncguard::{Backoff, Jitter};
///
/// let patient = Backoff::fixed(Duration::from_millis(500)).with_jitter(Jitter::Full);
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    factor: f32,
    jitter: Jitter,
}

/// How much of a pause is random, so that waiters do not all try at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// Half of the pause is fixed, half is random.
    Equal,
    /// The whole pause is random.
    Full,
    /// Nothing is random.
    None,
}

/// A hundred attempts a second per key and process are more than any server needs to hear.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Bounds how long a waiter still sleeps after the server is back.
const LONGEST_PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(900);

impl Backoff {
    /// Pauses for `first`, then for twice as long each time. It suits most waits: a short one costs
    /// little, and a long one does not load the server.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self { first, factor: 2.0, jitter: Jitter::Equal }
    }

    /// Pauses for `pause` each time. Use it if you know how long the holder works.
    #[must_use]
    pub const fn fixed(pause: Duration) -> Self {
        Self { first: pause, factor: 1.0, jitter: Jitter::Equal }
    }

    /// Sets the jitter. Default: [`Jitter::Equal`]. Use [`Jitter::None`] only if there is one waiter.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The pause before an attempt that is not a retry.
    pub(crate) fn first_pause(self) -> Duration {
        self.pauses().next()
    }

    pub(crate) fn pauses(self) -> Pauses {
        self.pauses_up_to(LONGEST_PAUSE)
    }

    pub(crate) fn pauses_after_failure(self) -> Pauses {
        self.pauses_up_to(LONGEST_PAUSE_AFTER_FAILURE)
    }

    fn pauses_up_to(self, longest: Duration) -> Pauses {
        let delays = ExponentialBuilder::new()
            .with_factor(self.factor)
            .with_min_delay(self.first.clamp(SHORTEST_PAUSE, longest))
            .with_max_delay(longest)
            .without_max_times()
            .build();
        Pauses { delays, longest, jitter: self.jitter }
    }
}

/// Pauses without end.
#[derive(Debug)]
pub(crate) struct Pauses {
    delays: ExponentialBackoff,
    longest: Duration,
    jitter: Jitter,
}

impl Pauses {
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.delays.next().unwrap_or(self.longest);
        let pause = match self.jitter {
            Jitter::Equal => delay / 2 + (delay / 2).mul_f32(fastrand::f32()),
            Jitter::Full => delay.mul_f32(fastrand::f32()),
            Jitter::None => delay,
        };
        pause.max(SHORTEST_PAUSE)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(backoff: Backoff, pauses: usize) -> Vec<u128> {
        let mut made = backoff.pauses();
        (0..pauses).map(|_| made.next().as_millis()).collect()
    }

    #[test]
    fn w1_exponential_doubles_up_to_the_longest_pause() {
        let backoff = Backoff::default().with_jitter(Jitter::None);
        assert_eq!(millis(backoff, 9), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn w1_fixed_stays() {
        let backoff = Backoff::fixed(Duration::from_millis(70)).with_jitter(Jitter::None);
        assert_eq!(millis(backoff, 100), [70; 100]);
    }

    #[test]
    fn w3_no_pause_is_shorter_than_the_least_one() {
        for jitter in [Jitter::None, Jitter::Equal, Jitter::Full] {
            let backoff = Backoff::fixed(Duration::ZERO).with_jitter(jitter);
            assert_eq!(millis(backoff, 3), [10, 10, 10], "{jitter:?}");
        }
    }

    #[test]
    fn w4_pauses_after_a_failure_are_short() {
        let mut pauses = Backoff::fixed(Duration::from_secs(60)).pauses_after_failure();
        assert!((0..100).all(|_| pauses.next() <= LONGEST_PAUSE_AFTER_FAILURE));
    }

    #[test]
    fn w1_jitter_makes_half_or_all_of_a_pause_random() {
        let backoff = Backoff::fixed(Duration::from_secs(1));
        assert!(millis(backoff, 1000).iter().all(|pause| (500..=1000).contains(pause)));
        let full = millis(backoff.with_jitter(Jitter::Full), 1000);
        assert!(full.iter().all(|pause| *pause <= 1000));
        assert!(full.iter().any(|pause| *pause < 500));
    }
}

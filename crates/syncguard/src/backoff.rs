//! How long a waiter pauses between two attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How long a waiter pauses between two attempts.
///
/// # Default
///
/// 100 ms at first, doubled each time, with [`Jitter::Equal`]. A pause is never longer than 10 s,
/// nor than the time the holder's lease still has, nor than the time left to wait.
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

/// How much chance there is in a pause, so that waiters do not all try at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// Half of the pause is fixed, half is random.
    Equal,
    /// The pause is random, from nothing to all of it.
    Full,
    /// No chance.
    None,
}

const MAX_DELAY: Duration = Duration::from_secs(10);

impl Backoff {
    /// `first`, then twice as long each time. Right for most: a short wait costs little, a long one
    /// does not load the server.
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self { first, factor: 2.0, jitter: Jitter::Equal }
    }

    /// `delay` each time: for work whose length is known.
    #[must_use]
    pub const fn fixed(delay: Duration) -> Self {
        Self { first: delay, factor: 1.0, jitter: Jitter::Equal }
    }

    /// Sets the jitter. Default: [`Jitter::Equal`]. Take [`Jitter::None`] only where there is one
    /// waiter.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The pause before an attempt that is not a retry.
    pub(crate) fn first(self) -> Duration {
        self.pauses(None).next().unwrap_or(self.first)
    }

    /// The pauses, as many as there may be retries, or without end.
    pub(crate) fn pauses(self, max_retries: Option<u32>) -> impl Iterator<Item = Duration> + Send {
        let builder = ExponentialBuilder::new()
            .with_factor(self.factor)
            .with_min_delay(self.first.min(MAX_DELAY))
            .with_max_delay(MAX_DELAY);
        let builder = match max_retries {
            Some(retries) => builder.with_max_times(usize::try_from(retries).unwrap_or(usize::MAX)),
            None => builder.without_max_times(),
        };
        builder.build().map(move |delay| match self.jitter {
            Jitter::Equal => delay / 2 + (delay / 2).mul_f32(fastrand::f32()),
            Jitter::Full => delay.mul_f32(fastrand::f32()),
            Jitter::None => delay,
        })
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

    fn millis(backoff: Backoff, retries: u32) -> Vec<u128> {
        backoff.pauses(Some(retries)).map(|pause| pause.as_millis()).collect()
    }

    #[test]
    fn w1_exponential_doubles_up_to_the_longest_pause() {
        let backoff = Backoff::default().with_jitter(Jitter::None);
        assert_eq!(millis(backoff, 9), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn w1_fixed_stays() {
        let backoff = Backoff::fixed(Duration::from_millis(70)).with_jitter(Jitter::None);
        assert_eq!(millis(backoff, 3), [70, 70, 70]);
        assert_eq!(backoff.pauses(None).take(100).count(), 100);
    }

    #[test]
    fn w1_jitter_stays_in_its_half_or_whole() {
        let backoff = Backoff::fixed(Duration::from_secs(1));
        assert!(millis(backoff, 1000).iter().all(|pause| (500..=1000).contains(pause)));
        let full = millis(backoff.with_jitter(Jitter::Full), 1000);
        assert!(full.iter().all(|pause| *pause <= 1000));
        assert!(full.iter().any(|pause| *pause < 500));
    }
}

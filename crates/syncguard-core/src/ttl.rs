//! How long a lease lasts.

use std::time::Duration;

use crate::{Error, ErrorCode, Operation};

/// Says how long a lease lasts unless it is extended: a whole number of milliseconds, at least 1.
///
/// A `Duration` converts into a `Ttl`. A fraction of a millisecond is rounded up, so a TTL is never
/// shorter than the duration it was made from (T3).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use syncguard_core::Ttl;
///
/// assert_eq!(Ttl::try_from(Duration::from_secs(30))?.as_millis(), 30_000);
/// assert_eq!(Ttl::try_from(Duration::from_secs(10) / 3)?.as_millis(), 3_334);
/// assert!(Ttl::try_from(Duration::ZERO).is_err());
/// # Ok::<(), syncguard_core::InvalidTtl>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

const NANOS_PER_MILLI: u128 = 1_000_000;

impl Ttl {
    /// The longest TTL: 2^52 ms, about 142,000 years.
    ///
    /// With it, an expiry is still below 2^53, so JSON and doubles carry it exactly.
    pub const MAX: Self = Self(1 << 52);

    /// Returns the TTL in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the TTL as a `Duration`.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = InvalidTtl;

    /// Rounds up to whole milliseconds.
    ///
    /// # Errors
    ///
    /// [`InvalidTtl`] if the duration is zero or longer than [`MAX`](Self::MAX).
    fn try_from(duration: Duration) -> Result<Self, InvalidTtl> {
        match u64::try_from(duration.as_nanos().div_ceil(NANOS_PER_MILLI)) {
            Ok(0) => Err(InvalidTtl::Zero),
            Ok(millis) if millis <= Self::MAX.0 => Ok(Self(millis)),
            _ => Err(InvalidTtl::TooLong),
        }
    }
}

/// Says why a `Duration` cannot be a [`Ttl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTtl {
    /// The duration is longer than [`Ttl::MAX`].
    #[error("the TTL is too long: pass at most {max} ms", max = Ttl::MAX.0)]
    TooLong,
    /// The duration is zero.
    #[error("the TTL is zero: pass at least 1 ms")]
    Zero,
}

impl From<InvalidTtl> for Error {
    fn from(invalid: InvalidTtl) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Acquire).with_message(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t3_a_ttl_is_rounded_up_to_whole_milliseconds() {
        let millis = |duration| Ttl::try_from(duration).unwrap().as_millis();
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_micros(999)), 1);
        assert_eq!(millis(Duration::from_millis(1)), 1);
        assert_eq!(millis(Duration::from_micros(1_500)), 2);
        assert_eq!(millis(Duration::from_secs(10) / 3), 3_334);
    }

    #[test]
    fn t3_zero_and_more_than_the_maximum_are_refused() {
        let of = |duration| Ttl::try_from(duration);
        assert_eq!(of(Duration::ZERO), Err(InvalidTtl::Zero));
        assert_eq!(of(Duration::from_millis(1 << 52)), Ok(Ttl::MAX));
        let over = Duration::from_millis(1 << 52) + Duration::from_nanos(1);
        for too_long in [over, Duration::from_secs(u64::MAX), Duration::MAX] {
            assert_eq!(of(too_long), Err(InvalidTtl::TooLong));
        }
        let error = Error::from(InvalidTtl::TooLong);
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(error.message(), Some("the TTL is too long: pass at most 4503599627370496 ms"));
    }
}

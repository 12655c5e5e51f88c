//! How long a lease lasts, points in time, and the one predicate that says whether it is live.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Operation};

/// The time to live of a lease: a whole number of milliseconds, at least one.
///
/// ```
/// use std::time::Duration;
/// use syncguard_core::Ttl;
///
/// assert_eq!(Ttl::try_from(Duration::from_secs(30))?.as_millis(), 30_000);
/// assert!(Ttl::try_from(Duration::ZERO).is_err());
/// # Ok::<(), syncguard_core::InvalidTtl>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// The longest TTL, about 142,000 years: an expiry is then still an exact number in JSON.
    pub const MAX: Self = Self(1 << 52);

    /// The number of milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same as a `Duration`.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = InvalidTtl;

    fn try_from(duration: Duration) -> Result<Self, InvalidTtl> {
        if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(InvalidTtl::Fraction);
        }
        match u64::try_from(duration.as_millis()) {
            Ok(0) => Err(InvalidTtl::Zero),
            Ok(millis) if millis <= Self::MAX.0 => Ok(Self(millis)),
            _ => Err(InvalidTtl::TooLong),
        }
    }
}

/// Why a `Duration` is no [`Ttl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTtl {
    /// It has a fraction of a millisecond.
    #[error("the TTL must be a whole number of milliseconds")]
    Fraction,
    /// It is longer than [`Ttl::MAX`].
    #[error("the TTL is too long")]
    TooLong,
    /// It is zero.
    #[error("the TTL must be at least one millisecond")]
    Zero,
}

impl From<InvalidTtl> for Error {
    fn from(invalid: InvalidTtl) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Acquire).with_message(invalid.to_string())
    }
}

/// A point in time on the clock that decides about a lease, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point in time so many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// When a lease ends that is granted or extended now.
    #[must_use]
    pub const fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.0))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

/// How long after its expiry a lease still counts as live, in every SyncGuard client.
pub const TOLERANCE: Duration = Duration::from_millis(TOLERANCE_MS);

const TOLERANCE_MS: u64 = 1_000;

/// Whether a lease that expires at `expires_at` is live at `now`: the one predicate.
///
/// ```
/// use syncguard_core::{Timestamp, is_live};
///
/// let expires_at = Timestamp::from_millis(5_000);
/// assert!(is_live(expires_at, Timestamp::from_millis(5_999)));
/// assert!(!is_live(expires_at, Timestamp::from_millis(6_000)));
/// ```
#[must_use]
pub const fn is_live(expires_at: Timestamp, now: Timestamp) -> bool {
    expires_at.0.saturating_add(TOLERANCE_MS) > now.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t2_a_lease_is_live_until_the_tolerance_has_passed() {
        let now = Timestamp::from_millis(1_795_451_239_701);
        for (offset, live) in
            [(5_000, true), (0, true), (-999, true), (-1_000, false), (-5_000, false)]
        {
            let expires_at = Timestamp::from_millis(now.0.checked_add_signed(offset).unwrap());
            assert_eq!(is_live(expires_at, now), live, "{offset}");
        }
    }

    #[test]
    fn t3_whole_milliseconds_from_one() {
        let of = |duration| Ttl::try_from(duration);
        assert_eq!(of(Duration::ZERO), Err(InvalidTtl::Zero));
        assert_eq!(of(Duration::from_micros(999)), Err(InvalidTtl::Fraction));
        assert_eq!(of(Duration::from_micros(1_500)), Err(InvalidTtl::Fraction));
        assert_eq!(of(Duration::from_millis(1)).unwrap().as_millis(), 1);
        assert_eq!(of(Duration::from_millis(1 << 52)).unwrap(), Ttl::MAX);
        assert_eq!(of(Duration::from_millis((1 << 52) + 1)), Err(InvalidTtl::TooLong));
        assert_eq!(of(Duration::MAX), Err(InvalidTtl::Fraction));
        assert_eq!(of(Duration::from_secs(u64::MAX)), Err(InvalidTtl::TooLong));
    }
}

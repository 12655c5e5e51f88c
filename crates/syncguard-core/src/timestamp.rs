//! Points in time, and the one predicate that says whether a lease is live.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::Ttl;

/// Marks a point in time on the clock that decides about a lease, in milliseconds since the Unix
/// epoch.
///
/// `Display` writes it in UTC as RFC 3339 with milliseconds. Years after 9999, which RFC 3339 does
/// not cover, have a plus sign and more digits. No value makes a method of this type panic or wrap:
/// arithmetic stops at the largest or the smallest value.
///
/// # Examples
///
/// ```
/// use syncguard_core::Timestamp;
///
/// let timestamp = Timestamp::from_millis(1_795_451_239_701);
/// assert_eq!(timestamp.to_string(), "2026-11-23T16:27:19.701Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a timestamp from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the expiry of a lease that is granted or extended at this point in time.
    #[must_use]
    pub const fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_millis()))
    }

    /// Returns the time from `earlier` to this point, or zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute) = (second_of_day / 3_600, second_of_day / 60 % 60);
        let second = second_of_day % 60;
        if year > 9_999 {
            f.write_str("+")?;
        }
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Converts days since 1970-01-01 into year, month and day of the Gregorian calendar.
fn civil_date(mut days: u64) -> (u64, u64, u64) {
    // Any 400 years in a row have this many days, so at most 399 years remain to be counted.
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let mut year = 1970 + days / DAYS_IN_400_YEARS * 400;
    days %= DAYS_IN_400_YEARS;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl From<Timestamp> for SystemTime {
    /// Converts without panicking. A time that this platform's clock type cannot hold becomes the
    /// end of the year 9999.
    fn from(timestamp: Timestamp) -> Self {
        // Windows counts 100 ns in an i64, which ends in the year 30828.
        const END_OF_9999: Duration = Duration::from_millis(253_402_300_799_999);
        Self::UNIX_EPOCH
            .checked_add(Duration::from_millis(timestamp.0))
            .or_else(|| Self::UNIX_EPOCH.checked_add(END_OF_9999))
            .unwrap_or(Self::UNIX_EPOCH)
    }
}

/// The time after its expiry for which a lease still counts as live, in every SyncGuard client.
pub const TOLERANCE: Duration = Duration::from_millis(TOLERANCE_MS);

const TOLERANCE_MS: u64 = 1_000;

/// Returns whether a lease that expires at `expires_at` is live at `now` (T2).
///
/// All code that asks this question calls this function, so that no two parts can disagree.
///
/// # Examples
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
    use proptest::prelude::*;

    const LATEST: Timestamp = Timestamp(u64::MAX);

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
    fn display_is_rfc_3339_in_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            // 2100 is no leap year.
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+10000-01-01T00:00:00.000Z"),
            (u64::MAX, "+584556019-04-03T14:25:51.615Z"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn each_day_follows_the_one_before(days in 0_u64..10_000_000) {
            let (year, month, day) = civil_date(days);
            let next = if day < days_in_month(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
            prop_assert_eq!(civil_date(days + 1), next);
        }
    }

    #[test]
    fn no_timestamp_panics_or_wraps() {
        for millis in [u64::MAX, u64::MAX - 1, 1 << 53, 0] {
            let timestamp: Timestamp = serde_json::from_str(&millis.to_string()).unwrap();
            assert!(timestamp.after(Ttl::MAX) >= timestamp);
            assert_eq!(timestamp.since(LATEST), Duration::ZERO);
            assert_eq!(LATEST.since(timestamp), Duration::from_millis(u64::MAX - millis));
            assert!(SystemTime::from(timestamp) >= SystemTime::UNIX_EPOCH);
            assert!(timestamp.to_string().ends_with('Z'));
        }
        assert_eq!(LATEST.after(Ttl::MAX), LATEST);
        assert!(is_live(LATEST, Timestamp(0)));
        assert!(!is_live(LATEST, LATEST), "saturated: the tolerance does not wrap to the past");
        assert!(is_live(Timestamp(0), Timestamp(0)));
        assert!(!is_live(Timestamp(0), LATEST));
    }
}

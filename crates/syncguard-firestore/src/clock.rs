//! This machine's clock, and how far it is from Firestore's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gcloud_sdk::prost_types;
use syncguard_core::{TOLERANCE, Timestamp};

/// The clock that decides about leases, and the watch over it. Clones are the same clock.
#[derive(Clone)]
pub(crate) struct ClientClock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Whether the last certain offset was worth a warning, so that one deviation warns once.
    off: Arc<AtomicBool>,
}

impl ClientClock {
    pub(crate) fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), off: Arc::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Compares this clock with the time that a reply carries, and warns when it is off.
    pub(crate) fn observe(&self, sent: Timestamp, server: prost_types::Timestamp) -> ClockOffset {
        let offset = ClockOffset::between(sent, self.now(), server);
        if offset.certainly_exceeds(ClockOffset::WARN_ABOVE) {
            if !self.off.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    ahead = ?offset.ahead(),
                    behind = ?offset.behind(),
                    uncertainty = ?offset.uncertainty(),
                    "this machine's clock is off from Firestore's by more than half the tolerance \
                     of leases: locks are exclusive only while all clocks agree within it"
                );
            }
        } else if offset.certainly_within(ClockOffset::WARN_ABOVE) {
            self.off.store(false, Ordering::Relaxed);
        }
        offset
    }
}

impl Default for ClientClock {
    fn default() -> Self {
        Self::new(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl fmt::Debug for ClientClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientClock").finish_non_exhaustive()
    }
}

/// How far this machine's clock is from Firestore's, as one reply told.
///
/// The reply carries the time at which the server worked on it, which was between sending and
/// receiving: the true offset is within [`uncertainty`](Self::uncertainty) of the estimate, half
/// the time of the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Bounds of this machine's time minus the server's, in milliseconds.
    least: i64,
    most: i64,
}

impl ClockOffset {
    /// Half the tolerance of leases: two machines that are each closer than this to Firestore's
    /// clock agree within the tolerance.
    pub const WARN_ABOVE: Duration = TOLERANCE.checked_div(2).unwrap();

    fn between(sent: Timestamp, received: Timestamp, server: prost_types::Timestamp) -> Self {
        let millis = |time: Timestamp| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let server = server
            .seconds
            .saturating_mul(1_000)
            .saturating_add(i64::from(server.nanos / 1_000_000));
        let (one, other) =
            (millis(sent).saturating_sub(server), millis(received).saturating_sub(server));
        // This machine's clock may have been set back in between.
        Self { least: one.min(other), most: one.max(other) }
    }

    /// How far this machine's clock is ahead of Firestore's; zero when it is behind.
    #[must_use]
    pub const fn ahead(&self) -> Duration {
        Duration::from_millis(if self.estimate() > 0 { self.estimate().unsigned_abs() } else { 0 })
    }

    /// How far this machine's clock is behind Firestore's; zero when it is ahead.
    #[must_use]
    pub const fn behind(&self) -> Duration {
        Duration::from_millis(if self.estimate() < 0 { self.estimate().unsigned_abs() } else { 0 })
    }

    /// How far the truth can be from the estimate, either way.
    #[must_use]
    pub const fn uncertainty(&self) -> Duration {
        Duration::from_millis(self.most.abs_diff(self.least).div_ceil(2))
    }

    /// Whether the clocks are further apart than `limit`, even at the near end of the uncertainty.
    #[must_use]
    pub fn certainly_exceeds(&self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.least > limit || self.most < -limit
    }

    pub(crate) fn certainly_within(&self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.least >= -limit && self.most <= limit
    }

    const fn estimate(&self) -> i64 {
        self.least.saturating_add(self.most) / 2
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    const SERVER: prost_types::Timestamp =
        prost_types::Timestamp { seconds: 1_795_451_240, nanos: 172_345_000 };

    fn offset(sent: u64, received: u64) -> ClockOffset {
        let at = |millis| Timestamp::from_millis(1_795_451_240_172 + millis - 10_000);
        ClockOffset::between(at(sent), at(received), SERVER)
    }

    #[test]
    fn t1_the_offset_is_the_middle_of_the_round_trip() {
        let ahead = offset(10_700, 10_740);
        assert_eq!(ahead.ahead(), Duration::from_millis(720));
        assert_eq!(ahead.behind(), Duration::ZERO);
        assert_eq!(ahead.uncertainty(), Duration::from_millis(20));
        let behind = offset(9_100, 9_101);
        assert_eq!(behind.ahead(), Duration::ZERO);
        assert_eq!(behind.behind(), Duration::from_millis(899));
        assert_eq!(behind.uncertainty(), Duration::from_millis(1));
        // Set back by two seconds while the call was out.
        assert_eq!(offset(11_000, 9_000).uncertainty(), Duration::from_secs(1));
    }

    #[test]
    fn t1_only_certain_offsets_exceed_the_limit() {
        let limit = ClockOffset::WARN_ABOVE;
        assert_eq!(limit, Duration::from_millis(500));
        for (sent, received, exceeds, within) in [
            (10_501, 10_600, true, false),
            (10_500, 10_600, false, false),
            (10_000, 10_500, false, true),
            (9_400, 9_499, true, false),
            (9_400, 9_500, false, false),
            (9_500, 9_999, false, true),
            (9_000, 14_000, false, false),
        ] {
            let offset = offset(sent, received);
            assert_eq!(offset.certainly_exceeds(limit), exceeds, "{offset:?}");
            assert_eq!(offset.certainly_within(limit), within, "{offset:?}");
        }
    }

    /// Counts warnings.
    struct Warnings(Arc<AtomicU64>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn t1_one_deviation_warns_once() {
        let (now, warnings) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let clock = ClientClock::new({
            let now = now.clone();
            move || Timestamp::from_millis(now.load(Ordering::Relaxed))
        });
        let _here = tracing::subscriber::set_default(Warnings(warnings.clone()));
        for (off, expected) in [(0, 0), (501, 1), (700, 1), (0, 1), (-501, 2), (-500, 2), (501, 3)]
        {
            let millis = 1_795_451_240_172_u64.checked_add_signed(off).unwrap();
            now.store(millis, Ordering::Relaxed);
            clock.observe(clock.now(), SERVER);
            assert_eq!(warnings.load(Ordering::Relaxed), expected, "{off}");
        }
    }
}

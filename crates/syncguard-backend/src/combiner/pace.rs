//! How long requests take, and which are under way.

use std::time::Duration;

use tokio::time::Instant;

/// An operation does not wait for a request that has been under way for this time. The request may be lost, or the
/// server is slower than before.
pub(super) const OVERDUE: Duration = Duration::from_millis(5);

/// The pace of requests of one kind.
#[derive(Default)]
pub(super) struct Pace {
    /// When those under way began.
    under_way: Vec<Instant>,
    /// The time of the shortest request, lately.
    shortest: Option<Duration>,
}

impl Pace {
    pub(super) fn begin(&mut self, now: Instant) {
        self.under_way.push(now);
    }

    /// Ends the request that began then.
    ///
    /// The shortest time shows best how far away the server is, because many operations and a busy machine make
    /// requests longer. It rises slowly, because short requests may be rare. A failure does not count, because
    /// it may come without an answer of the server.
    pub(super) fn end(&mut self, begun: Instant, answered: bool) {
        if let Some(at) = self.under_way.iter().position(|one| *one == begun) {
            self.under_way.swap_remove(at);
        }
        if answered {
            let time = begun.elapsed();
            let shortest = self.shortest.unwrap_or(time);
            let risen = shortest + time.saturating_sub(shortest) / 1_024;
            self.shortest = Some(time.min(risen));
        }
    }

    /// Whether a request under way is likely to end soon. It is if a recent one was that short.
    pub(super) fn ends_soon(&self, now: Instant, short: Duration) -> bool {
        self.shortest.is_some_and(|shortest| shortest < short)
            && self.under_way.iter().any(|begun| !is_overdue(*begun, now))
    }

    /// Whether requests are under way, and all of them are overdue.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        !self.under_way.is_empty() && self.under_way.iter().all(|begun| is_overdue(*begun, now))
    }
}

fn is_overdue(begun: Instant, now: Instant) -> bool {
    now.saturating_duration_since(begun) >= OVERDUE
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    async fn request(pace: &mut Pace, time: Duration, answered: bool) {
        let begun = Instant::now();
        pace.begin(begun);
        advance(time).await;
        pace.end(begun, answered);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_request_counts_and_is_forgotten_slowly() {
        let mut pace = Pace::default();
        request(&mut pace, 3 * MILLI, true).await;
        assert_eq!(pace.shortest, Some(3 * MILLI));
        request(&mut pace, MILLI, true).await;
        assert_eq!(pace.shortest, Some(MILLI));
        for _ in 0..100 {
            request(&mut pace, 3 * MILLI, true).await;
        }
        assert!(pace.shortest > Some(MILLI) && pace.shortest < Some(2 * MILLI));
        for _ in 0..1_000 {
            request(&mut pace, 3 * MILLI, true).await;
        }
        assert!(pace.shortest > Some(2 * MILLI));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_says_nothing_about_the_time_of_requests() {
        let mut pace = Pace::default();
        request(&mut pace, Duration::ZERO, false).await;
        assert_eq!(pace.shortest, None);
        request(&mut pace, 3 * MILLI, true).await;
        request(&mut pace, Duration::ZERO, false).await;
        assert_eq!(pace.shortest, Some(3 * MILLI));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_ends_soon_if_all_that_is_under_way_is_overdue() {
        let (mut pace, short) = (Pace::default(), 2 * MILLI);
        request(&mut pace, MILLI, true).await;
        assert!(!pace.ends_soon(Instant::now(), short));
        assert!(!pace.is_overdue(Instant::now()));
        pace.begin(Instant::now());
        assert!(pace.ends_soon(Instant::now(), short));
        assert!(!pace.ends_soon(Instant::now(), MILLI));
        advance(OVERDUE).await;
        assert!(!pace.ends_soon(Instant::now(), short) && pace.is_overdue(Instant::now()));
        let begun = Instant::now();
        pace.begin(begun);
        assert!(pace.ends_soon(begun, short) && !pace.is_overdue(begun));
        pace.end(begun, true);
        assert!(!pace.ends_soon(begun, short) && pace.is_overdue(begun));
    }
}

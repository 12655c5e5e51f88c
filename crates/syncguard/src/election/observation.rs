//! Watches who leads: reads after each notification, at the end of each lease, and by timer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use syncguard_core::{Backend, Fence, Key, LockRecord, Operation, Result, TOLERANCE, Timestamp};
use tokio::time::{Instant, sleep_until};

use super::Leadership;
use crate::event::Outcome;
use crate::shared::Shared;
use crate::subscription::Subscription;

/// A stream of who leads. It is level-triggered: its first item says how things stand, and each further
/// item that they have changed. What changes and changes back between two reads is not seen.
///
/// It never goes back to a lower fence. It ends when the manager is shut down.
///
/// A release notifies it, where the backend has notifications. The end of a lease that nobody released
/// is seen by a timer. A new leader, and a new value, are seen by a timer too: 25 ms after the last
/// change, then ever less often, at least every 1 s while nobody leads and every 5 s while somebody
/// does.
#[must_use = "does nothing until it is polled"]
pub struct Observation(Option<Next>);

/// Finds the next change. `None` if the manager is shut down.
type Next = Pin<Box<dyn Future<Output = Option<(Leadership, Watch)>> + Send>>;

/// The time between two reads doubles from the first of these to one of the others.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE_WHILE_LED: Duration = Duration::from_secs(5);
/// The least time between two reads after one that showed no change, however many notifications come.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

impl Observation {
    pub(super) fn new(shared: Arc<Shared>, key: Key) -> Self {
        let now = Instant::now();
        let watch = Watch {
            shared,
            key,
            seen: None,
            highest: None,
            answered: now,
            vacant_since: None,
            subscription: None,
            read_at: now,
            pause: FIRST_PAUSE,
            least_pause: Duration::ZERO,
            wake_at: now,
        };
        Self(Some(Box::pin(watch.change())))
    }

    /// The next change, at first how things stand. `None` after the shutdown of the manager.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no change is lost.
    pub async fn next(&mut self) -> Option<Leadership> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Observation {
    type Item = Leadership;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Leadership>> {
        // Taken out, so that a future which ended or panicked is never polled again.
        let Some(mut next) = self.0.take() else {
            return Poll::Ready(None);
        };
        match next.as_mut().poll(cx) {
            Poll::Pending => {
                self.0 = Some(next);
                Poll::Pending
            }
            Poll::Ready(change) => Poll::Ready(change.map(|(leadership, watch)| {
                self.0 = Some(Box::pin(watch.change()));
                leadership
            })),
        }
    }
}

/// What an observer knows, from one read to the next.
struct Watch {
    shared: Arc<Shared>,
    key: Key,
    /// What it last told.
    seen: Option<Leadership>,
    highest: Option<Fence>,
    /// When the store last answered.
    answered: Instant,
    vacant_since: Option<Instant>,
    subscription: Option<Subscription>,
    read_at: Instant,
    /// The time until the next read, unless something happens before.
    pause: Duration,
    least_pause: Duration,
    wake_at: Instant,
}

impl Watch {
    async fn change(mut self) -> Option<(Leadership, Self)> {
        loop {
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                () = shared.background.closing().cancelled() => return None,
                () = self.wait() => {}
            }
            // It begins before the read, so that no release after the read is missed.
            self.subscription = Some(Subscription::new(shared.backend.backend.notified(&self.key)));
            let leadership = self.read().await;
            if self.seen.as_ref() != Some(&leadership) {
                self.note(&leadership);
                return Some((leadership, self));
            }
            self.least_pause = LEAST_PAUSE;
        }
    }

    /// Waits until it is time for the next read.
    async fn wait(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            tokio::select! {
                biased;
                () = subscription => self.pause = FIRST_PAUSE,
                () = sleep_until(self.wake_at) => {}
            }
            sleep_until(self.read_at + self.least_pause).await;
        }
    }

    async fn read(&mut self) -> Leadership {
        let seen = self.seen.clone();
        let (leadership, left) = match ask(&self.shared, &self.key, seen).await {
            Ok(None) => (Leadership::Vacant, None),
            Ok(Some((record, led))) if self.highest.is_none_or(|high| record.fence() >= high) => {
                (led, Some(self.left(&record)))
            }
            Ok(Some(_)) => (self.unknown("the answer is older than one before it"), None),
            Err(error) => (self.unknown(error), None),
        };
        self.read_at = Instant::now();
        if !matches!(leadership, Leadership::Unknown { .. }) {
            self.answered = self.read_at;
        }
        let longest = if left.is_some() { LONGEST_PAUSE_WHILE_LED } else { LONGEST_PAUSE };
        let pause =
            left.filter(|left| !left.is_zero()).map_or(self.pause, |left| left.min(self.pause));
        self.wake_at = self.read_at + pause;
        self.pause = (self.pause * 2).min(longest);
        leadership
    }

    /// Logs why, once until the store answers again.
    fn unknown(&self, why: impl fmt::Display) -> Leadership {
        if !matches!(self.seen, Some(Leadership::Unknown { .. })) {
            tracing::warn!(key = %self.key.fingerprint(), %why, "nobody knows who leads");
        }
        Leadership::Unknown { since: self.answered.into_std() }
    }

    /// How long the lease still lasts, if this machine's clock agrees with that of the store. Zero if
    /// it does not: then the timer of the reads is what is left.
    fn left(&self, record: &LockRecord) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "it only says when to look again")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_millis(now.as_millis().try_into().unwrap_or(u64::MAX));
        let ends_at_ttl = self.shared.backend.capabilities().ends_at_ttl();
        let tolerance = if ends_at_ttl { Duration::ZERO } else { TOLERANCE };
        let left = record.expires_at().since(now);
        if left.is_zero() { left } else { left + tolerance + Duration::from_millis(1) }
    }

    fn note(&mut self, leadership: &Leadership) {
        match leadership {
            Leadership::Vacant => {
                self.vacant_since.get_or_insert(self.read_at);
            }
            Leadership::Led { fence, .. } => {
                self.highest = Some(*fence);
                if let Some(since) = self.vacant_since.take() {
                    let (backend, done) = (&self.shared.backend, Outcome::Done);
                    backend.report(Operation::Vacancy, done, &self.key, None, since, None);
                }
            }
            Leadership::Unknown { .. } => {}
        }
        self.seen = Some(leadership.clone());
        (self.pause, self.least_pause) = (FIRST_PAUSE, Duration::ZERO);
        self.wake_at = self.wake_at.min(self.read_at + FIRST_PAUSE);
    }
}

/// The live lease, and what its holder has published.
async fn ask(
    shared: &Shared,
    key: &Key,
    seen: Option<Leadership>,
) -> Result<Option<(LockRecord, Leadership)>> {
    let backend = &shared.backend;
    let Some(record) = backend.get(key).await? else {
        return Ok(None);
    };
    let fence = record.fence();
    let published = if backend.capabilities().publishes() {
        match backend.published(key).await {
            Ok(published) => published.filter(|published| published.fence() == fence),
            // A leader that is known without its name is better than none.
            Err(_) => match seen {
                Some(led @ Leadership::Led { fence: known, .. }) if known == fence => {
                    return Ok(Some((record, led)));
                }
                _ => None,
            },
        }
    } else {
        None
    };
    let (candidate, value) = published
        .map(|published| (published.candidate().to_owned(), published.value().to_owned()))
        .unzip();
    Ok(Some((record, Leadership::Led { fence, candidate, value })))
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation").finish_non_exhaustive()
    }
}

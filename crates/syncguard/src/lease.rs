//! The state of one held lease: its TTL, its deadline, and whether it is lost. It does no I/O.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use syncguard_core::{Fence, Lease, Ttl};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::queue::{Holder, Number};

/// A lease that this process holds.
#[derive(Debug)]
pub(crate) struct HeldLease {
    number: Number,
    /// As it was granted. What never changes is read from here.
    granted: Lease,
    started: Instant,
    timing: Timing,
    state: Mutex<State>,
    changed: Notify,
    lost_token: OnceLock<CancellationToken>,
    /// One operation on the lease at a time (H7).
    pub(crate) sending: tokio::sync::Mutex<()>,
    /// Whether a keeper watches the deadline.
    kept: AtomicBool,
}

/// How the deadline of a lease follows from its TTL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The store removes the lease exactly at its TTL.
    pub(crate) ends_at_ttl: bool,
    /// The end of `max_hold`, if the caller set it.
    pub(crate) hold_until: Option<Instant>,
}

#[derive(Debug)]
struct State {
    lease: Lease,
    ttl: Ttl,
    /// The holder may rely on the lease until then: counted on the monotonic clock from before the
    /// request was sent (T4).
    deadline: Instant,
    /// The server may keep the lease until then, whatever the holder relies on.
    stands_until: Instant,
    /// When a keep-alive renews (H4).
    renew_at: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Held,
    Lost,
    /// The guard let go. Nothing but a release is sent from here on.
    Ended,
}

/// Timers fire up to a millisecond late, and a task waits for its turn on a busy worker. If the store
/// removes a lease exactly at its TTL, the holder must stop that much earlier, or two holders work at
/// once. (Without it, the loss came 1 to 3 ms after the next grant in 21 of 769 losses.)
const TIMER_MARGIN: Duration = Duration::from_millis(5);

impl Timing {
    fn deadline(self, sent: Instant, ttl: Ttl) -> Instant {
        let ttl = ttl.as_duration();
        let margin = if self.ends_at_ttl { TIMER_MARGIN.min(ttl / 10) } else { Duration::ZERO };
        let deadline = after(sent, ttl - margin);
        self.hold_until.map_or(deadline, |until| deadline.min(until))
    }
}

impl HeldLease {
    /// A lease that was granted to a request which was sent at `sent`.
    pub(crate) fn new(
        number: Number,
        lease: Lease,
        ttl: Ttl,
        sent: Instant,
        timing: Timing,
    ) -> Self {
        if lease.fence() > Fence::WARN_ABOVE {
            tracing::warn!(
                key = %lease.key().fingerprint(),
                fence = %lease.fence(),
                "a tenth of the fences of this key are used up"
            );
        }
        let state = State {
            lease: lease.clone(),
            ttl,
            deadline: timing.deadline(sent, ttl),
            stands_until: after(sent, ttl.as_duration()),
            renew_at: renewal(sent, ttl),
            phase: Phase::Held,
        };
        Self {
            number,
            granted: lease,
            started: sent,
            timing,
            state: Mutex::new(state),
            changed: Notify::new(),
            lost_token: OnceLock::new(),
            sending: tokio::sync::Mutex::new(()),
            kept: AtomicBool::new(false),
        }
    }

    pub(crate) const fn granted(&self) -> &Lease {
        &self.granted
    }

    /// When the request that was granted was sent.
    pub(crate) const fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn lease(&self) -> Lease {
        self.state().lease.clone()
    }

    pub(crate) fn ttl(&self) -> Ttl {
        self.state().ttl
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.state().deadline
    }

    /// Until when a release is worth another try.
    pub(crate) fn stands_until(&self) -> Instant {
        self.state().stands_until
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder { number: self.number, fence: self.granted.fence(), deadline: self.deadline() }
    }

    /// Zero if the lease is lost.
    pub(crate) fn remaining(&self) -> Duration {
        let state = self.state();
        if state.phase == Phase::Lost {
            return Duration::ZERO;
        }
        state.deadline.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_over(Instant::now())
    }

    /// Whether the lease is lost, or its time is over at `now`.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let state = self.state();
        state.phase == Phase::Lost || state.deadline <= now
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.state().phase == Phase::Ended
    }

    /// The lease and its TTL, to be extended at `now`. `None` if the guard let go, or if the time is
    /// over: a loss is final, even if the server would still say yes.
    pub(crate) fn begin_extend(&self, now: Instant, ttl: Ttl) -> Option<Lease> {
        let mut state = self.state();
        if state.phase != Phase::Held || state.deadline <= now {
            return None;
        }
        // A shorter TTL may take effect although its reply gets lost.
        state.deadline = state.deadline.min(self.timing.deadline(now, ttl));
        state.stands_until = state.stands_until.max(after(now, ttl.as_duration()));
        state.renew_at = state.renew_at.min(renewal(now, ttl));
        let lease = state.lease.clone();
        drop(state);
        self.changed.notify_waiters();
        Some(lease)
    }

    /// The server extended the lease on a request that was sent at `sent`. False if the answer came
    /// too late.
    pub(crate) fn extended(&self, sent: Instant, ttl: Ttl, lease: Lease) -> bool {
        let mut state = self.state();
        if state.phase == Phase::Lost || state.deadline <= Instant::now() {
            return false;
        }
        state.deadline = self.timing.deadline(sent, ttl);
        state.stands_until = after(sent, ttl.as_duration());
        state.renew_at = renewal(sent, ttl);
        (state.lease, state.ttl) = (lease, ttl);
        drop(state);
        self.changed.notify_waiters();
        true
    }

    /// The guard lets go: the keeper stops, and no renewal is sent any more.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if state.phase == Phase::Held {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Marks the lease as lost. True for the first call, unless the guard let go before.
    pub(crate) fn lose(&self) -> bool {
        let mut state = self.state();
        let held = state.phase == Phase::Held;
        if held {
            state.phase = Phase::Lost;
        }
        drop(state);
        if held {
            self.changed.notify_waiters();
            if let Some(token) = self.lost_token.get() {
                token.cancel();
            }
        }
        held
    }

    /// A token that is cancelled when the lease is lost.
    pub(crate) fn lost_token(&self) -> CancellationToken {
        let token = self.lost_token.get_or_init(CancellationToken::new);
        if self.state().phase == Phase::Lost {
            token.cancel();
        }
        // A child: if a caller cancels it, that must not pass for a loss.
        token.child_token()
    }

    /// Resolves when the lease is lost or its time is over, by a timer that waits for no I/O (H5).
    pub(crate) async fn over(&self) {
        self.reached(|state| (state.phase != Phase::Lost).then_some(state.deadline)).await;
    }

    /// Resolves when no more than `margin` of the time is left, or when the lease is lost.
    pub(crate) async fn within(&self, margin: Duration) {
        let moment = |state: &State| {
            let held = state.phase != Phase::Lost;
            held.then(|| state.deadline.checked_sub(margin)).flatten()
        };
        self.reached(moment).await;
    }

    /// Resolves when a keep-alive should renew.
    pub(crate) async fn renewal_due(&self) -> Instant {
        self.reached(|state| Some(state.renew_at)).await
    }

    /// Resolves when the guard let go.
    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_ended() {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when a moment has passed, however often it is moved. `None` has passed.
    async fn reached(&self, moment: impl Fn(&State) -> Option<Instant>) -> Instant {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let moment = moment(&self.state()).unwrap_or(now);
            if now >= moment {
                return moment;
            }
            // A timer fires when its driver has run. After a pause of the process, the clock is ahead.
            let passed =
                poll_fn(|_| if Instant::now() >= moment { Poll::Ready(()) } else { Poll::Pending });
            tokio::select! {
                biased;
                () = passed => {}
                () = sleep_until(moment) => {}
                () = changed => {}
            }
        }
    }

    /// True for the first who asks: it starts the keeper.
    pub(crate) fn needs_keeper(&self) -> bool {
        !self.kept.swap(true, Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a lease is renewed: after a third of its TTL, or up to a sixteenth of that earlier, so that the
/// leases of this process with the same TTL are renewed together. A backend can then renew many of them
/// in one request.
fn renewal(sent: Instant, ttl: Ttl) -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let third = ttl.as_duration() / 3;
    let (due, step) = (after(sent, third), third / 16);
    let since = due.saturating_duration_since(*EPOCH.get_or_init(|| sent)).as_nanos();
    // Zero if the TTL is too short to be divided.
    let early = since.checked_rem(step.as_nanos()).unwrap_or_default();
    due - Duration::from_nanos(u64::try_from(early).unwrap_or_default())
}

/// A moment that cannot be represented never comes.
pub(crate) fn after(sent: Instant, duration: Duration) -> Instant {
    sent.checked_add(duration).unwrap_or(sent + Duration::from_secs(1 << 32))
}

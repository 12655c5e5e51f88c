//! One lease being held: its present state, and the operations on it, one at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use syncguard_core::{ErrorCode, Fence, Lease, Result, Timestamp, Ttl};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::attempt::handoff;
use crate::background::unfinished;
use crate::keep_alive::keep;
use crate::manager::Inner;

/// A lease that is held, shared by its guard and its keeper.
#[derive(Debug)]
pub(crate) struct Hold {
    manager: Arc<Inner>,
    /// Where background work runs, also when the guard is dropped outside the runtime.
    handle: std::sync::Mutex<Handle>,
    /// As it was granted; what never changes is read from here.
    granted: Lease,
    state: watch::Sender<State>,
    /// Whose turn it is to send something for this lease (H7).
    turn: Mutex<()>,
    lost: CancellationToken,
    /// Whether a task watches the deadline, so that the token is cancelled by itself.
    watched: AtomicBool,
}

#[derive(Clone, Debug)]
struct State {
    lease: Lease,
    ttl: Ttl,
    /// When the lease is over at the latest as far as the holder may rely on it: counted on the
    /// monotonic clock from before the request was sent (T4).
    deadline: Instant,
    /// When a keep-alive renews: after a third of the TTL (H4).
    renew_at: Instant,
    /// The guard has let go: nothing but a release is sent from here on.
    ended: bool,
}

impl Hold {
    pub(crate) fn new(
        manager: Arc<Inner>,
        handle: Handle,
        lease: Lease,
        ttl: Ttl,
        sent: Instant,
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
            deadline: after(sent, ttl.as_duration()),
            renew_at: after(sent, ttl.as_duration() / 3),
            ended: false,
        };
        Self {
            manager,
            handle: handle.into(),
            granted: lease,
            state: watch::Sender::new(state),
            turn: Mutex::new(()),
            lost: CancellationToken::new(),
            watched: AtomicBool::new(false),
        }
    }

    pub(crate) const fn granted(&self) -> &Lease {
        &self.granted
    }

    pub(crate) fn lease(&self) -> Lease {
        self.state.borrow().lease.clone()
    }

    pub(crate) fn expires_at(&self) -> Timestamp {
        self.state.borrow().lease.expires_at()
    }

    pub(crate) fn ttl(&self) -> Ttl {
        self.state.borrow().ttl
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.state.borrow().deadline
    }

    pub(crate) fn remaining(&self) -> Duration {
        if self.is_lost() { Duration::ZERO } else { self.time_left() }
    }

    fn time_left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    fn handle(&self) -> Handle {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guard is in the hands of somebody else, who is on that runtime.
    pub(crate) fn moves_to(&self, handle: Handle) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    /// Renews the lease for as long as its guard lives, in a task of its own.
    pub(crate) fn keep_alive(self: &Arc<Self>) {
        self.watch(true);
    }

    /// A token that is cancelled when the lease is lost.
    pub(crate) fn lost_token(self: &Arc<Self>) -> CancellationToken {
        self.watch(false);
        // A child: if a caller cancels it, that must not pass for a loss.
        self.lost.child_token()
    }

    fn watch(self: &Arc<Self>, keep_alive: bool) {
        if !self.watched.swap(true, Ordering::Relaxed) {
            let keeper = Keeper(self.clone());
            // Its end is that of the guard.
            drop(self.handle().spawn(async move { keep(&keeper.0, keep_alive).await }));
        }
    }

    /// Resolves when the lease is lost: the backend said so, or its time is up. The timer waits for
    /// no I/O, so a renewal that hangs cannot hold it up (H5).
    pub(crate) async fn lost(&self) {
        tokio::select! {
            () = self.lost.cancelled() => {}
            () = self.reached(|state| state.deadline) => self.lose(),
        }
    }

    /// Whether the lease is lost. That its time is up becomes final here, also when the timer that
    /// signals it has not run yet.
    pub(crate) fn is_lost(&self) -> bool {
        if self.time_left().is_zero() {
            self.lose();
        }
        self.lost.is_cancelled()
    }

    fn lose(&self) {
        if !self.lost.is_cancelled() {
            self.lost.cancel();
            self.manager.lines.freed(self.granted.key(), Some(self));
            tracing::warn!(key = %self.granted.key().fingerprint(), "a lease was lost");
        }
    }

    /// Lets go of the lease: the keeper stops, and no renewal is sent any more.
    pub(crate) fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    /// Resolves once the guard has let go.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.state.subscribe().wait_for(|state| state.ended).await;
    }

    /// Resolves when a keep-alive should renew.
    pub(crate) async fn renewal_due(&self) {
        self.reached(|state| state.renew_at).await;
    }

    /// Resolves when a moment has passed, however often it is moved.
    async fn reached(&self, moment: impl Fn(&State) -> Instant) {
        let mut state = self.state.subscribe();
        loop {
            let moment = moment(&state.borrow_and_update());
            if Instant::now() >= moment {
                return;
            }
            tokio::select! {
                () = sleep_until(moment) => {}
                _ = state.changed() => {}
            }
        }
    }

    /// The new expiry, or `None` when the lease is gone, which is signalled as a loss.
    pub(crate) async fn extend(&self, ttl: Ttl) -> Result<Option<Timestamp>> {
        let _turn = self.turn.lock().await;
        let lease = self.lease();
        // The guard has let go: this was a renewal that came too late (H7).
        if self.state.borrow().ended {
            return Ok(None);
        }
        // A loss is final, even if the server would still say yes.
        if self.is_lost() {
            return Ok(None);
        }
        let sent = Instant::now();
        let (deadline, renew_at) =
            (after(sent, ttl.as_duration()), after(sent, ttl.as_duration() / 3));
        // A shorter TTL may take effect although its reply gets lost.
        self.state.send_if_modified(|state| {
            let shorter = deadline < state.deadline;
            state.deadline = state.deadline.min(deadline);
            state.renew_at = state.renew_at.min(renew_at);
            shorter
        });
        let extended = self.manager.backend.extend(&lease, ttl).await?;
        let Some(lease) = extended.filter(|_| !self.is_lost()) else {
            self.lose();
            return Ok(None);
        };
        let expires_at = lease.expires_at();
        self.state.send_modify(|state| {
            let ended = state.ended;
            *state = State { lease, ttl, deadline, renew_at, ended };
        });
        Ok(Some(expires_at))
    }

    /// Ends the lease, by handing it over where somebody in this process waits for it. It waits for
    /// a renewal under way, or cuts it short.
    pub(crate) async fn release(&self) -> Result<bool> {
        self.end();
        let _turn = self.turn.lock().await;
        let Inner { backend, lines, .. } = &*self.manager;
        let (lease, over) = (self.lease(), self.time_left().is_zero());
        let capabilities = backend.capabilities();
        let told = capabilities.receives_notifications();
        let mut failure = None;
        if capabilities.supports_handoff()
            && !over
            && let Some(heir) = lines.heir(self, told)
        {
            match handoff(heir, &lease).await {
                // What speaks against the grant need not speak against the release, which takes no
                // memory on the server.
                Err(error) if !error.is_transient() || error.code() == ErrorCode::RateLimited => {
                    failure = Some(error);
                }
                outcome => return outcome,
            }
        }
        let released = backend.release(&lease, over).await?;
        if released {
            lines.released(self, told);
        } else {
            lines.freed(lease.key(), Some(self));
        }
        // Or has the handoff ended it?
        failure.filter(|_| !released).map_or(Ok(released), Err)
    }

    /// Ends the lease without anybody waiting for it.
    pub(crate) fn release_in_background(self: Arc<Self>) {
        self.end();
        let (manager, handle) = (self.manager.clone(), self.handle());
        let until = self.state.borrow().deadline;
        let unfinished = unfinished().with_key(self.granted.key());
        manager.background.release(&handle, until, unfinished, move || {
            let hold = self.clone();
            async move { hold.release().await }
        });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.manager.lines.forget(self);
    }
}

/// The lease in the hands of its keeper. When the keeper is gone but the guard is not, nobody watches
/// the deadline any more: its runtime was shut down, or the backend panicked.
struct Keeper(Arc<Hold>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.0.state.borrow().ended {
            self.0.lose();
        }
    }
}

/// No clock gets as far as the longest TTL: a moment that cannot be represented never comes.
pub(crate) fn after(sent: Instant, duration: Duration) -> Instant {
    sent.checked_add(duration).unwrap_or(sent + Duration::from_secs(1 << 32))
}

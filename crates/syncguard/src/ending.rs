//! Ends the lease of a guard: releases it, or hands it off to the next waiter of this process.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{ErrorCode, Key, Lease, Operation, Result, Sent};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::in_flight::InFlight;
use crate::lease::HeldLease;
use crate::loss;
use crate::queue::{Holder, Number, Receiver};
use crate::runtime::current_runtime;
use crate::shared::{Grant, Shared};
use crate::undo::{Undo, changed_nothing};

/// The time after which a release no longer waits for an extension under way. Backends answer sooner.
const LONGEST_EXTENSION: Duration = Duration::from_secs(10);

/// Ends the lease. True if this call ended it. It waits for an extension under way, and stops the
/// keeper, whose renewal may be cut short (H7).
///
/// If a waiter of this process can be served, the lease is handed off to it in the same round trip.
pub(crate) async fn release(
    shared: &Arc<Shared>,
    lease: &HeldLease,
    home: &Handle,
) -> Result<bool> {
    let mut now = Instant::now();
    if lease.is_over(now) {
        loss::signal(shared, lease);
    }
    lease.end();
    let _one_at_a_time = match lease.sending.try_lock() {
        Ok(sending) => Some(sending),
        Err(_) => {
            current_runtime(Operation::Release)
                .map_err(|error| error.with_key(lease.granted().key()))?;
            // A renewal on a runtime that nobody drives must not hold up the release for ever.
            let sending = timeout(LONGEST_EXTENSION, lease.sending.lock()).await.ok();
            now = Instant::now();
            sending
        }
    };
    let (present, Holder { number, deadline, .. }) = (lease.lease(), lease.holder());
    let (capabilities, key) = (shared.backend.capabilities(), present.key());
    let (peers, over) = (shared.peers(capabilities), deadline <= now);
    let may_hand_off = !over && capabilities.supports_handoff();
    let receiver = shared.queues.with(key, |queue| {
        queue.begin_release(number);
        may_hand_off.then(|| queue.receiver(now, peers)).flatten()
    });
    let mut failure = None;
    if let Some(receiver) = receiver {
        match handoff(shared, &present, number, receiver, home).await {
            // The server can refuse a grant and still accept a release, which needs no memory there.
            Err(error) if !error.is_transient() || error.code() == ErrorCode::RateLimited => {
                failure = Some(error);
            }
            outcome => return outcome,
        }
    }
    let released = shared.backend.release(&present, over).await?;
    shared.queues.update(key, |queue| {
        let effects = if released {
            queue.released(number, Instant::now(), peers)
        } else {
            queue.freed(Some(number))
        };
        ((), effects)
    });
    // If the release found no lease, the handoff may have ended it.
    failure.filter(|_| !released).map_or(Ok(released), Err)
}

/// Ends the lease, and nobody waits for it.
pub(crate) fn release_in_background(shared: &Arc<Shared>, lease: &Arc<HeldLease>, home: &Handle) {
    if lease.is_lost() {
        loss::signal(shared, lease);
    }
    lease.end();
    let (key, until) = (lease.granted().key(), lease.stands_until());
    let held = Arc::new(Registered { shared: shared.clone(), lease: lease.clone() });
    let home_of_handoff = home.clone();
    shared.background.release(home, key, until, move || {
        let (held, home) = (held.clone(), home_of_handoff.clone());
        async move { release(&held.shared, &held.lease, &home).await.map(drop) }
    });
}

/// While this exists, the queue treats the lease as held. It is dropped when the release ended, or
/// could not be sent.
struct Registered {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        forget(&self.shared, &self.lease);
    }
}

/// This process no longer looks after the lease, which stands until its TTL.
pub(crate) fn forget(shared: &Shared, lease: &HeldLease) {
    let number = lease.holder().number;
    shared.queues.with(lease.granted().key(), |queue| queue.forget(number));
}

/// Ends one lease and grants the next, in one step on the backend. Whether the first one was live.
async fn handoff(
    shared: &Arc<Shared>,
    from: &Lease,
    holder: Number,
    receiver: Receiver,
    home: &Handle,
) -> Result<bool> {
    let pending = Handoff {
        shared: shared.clone(),
        key: from.key().clone(),
        home: home.clone(),
        holder,
        receiver,
        settled: false,
    };
    let from = from.clone();
    let (tracked, sent) = (shared.background.token(), Sent::default());
    // The release must happen, so it goes on in any case.
    sent.mark();
    InFlight::new(home, tracked, sent, async move { pending.send(&from).await }).await
}

/// A handoff under way. If it is dropped before its outcome is known, the receiver clears that up, or
/// what may have been granted is undone.
struct Handoff {
    shared: Arc<Shared>,
    key: Key,
    home: Handle,
    /// The holder whose lease is handed off.
    holder: Number,
    receiver: Receiver,
    settled: bool,
}

/// Why a handoff granted nothing, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// The holder's lease had ended.
    LeaseGone,
    /// The request failed, and the holder's lease stands.
    NothingChanged,
    /// Nobody knows whether it granted something.
    Uncertain,
}

impl Handoff {
    async fn send(mut self, from: &Lease) -> Result<bool> {
        let (terms, sent) = (self.receiver.terms.clone(), Instant::now());
        match self.shared.backend.handoff(from, &terms.id, terms.ttl).await {
            Ok(Some(lease)) => {
                let answered = Instant::now();
                match self.shared.held_lease(lease, &terms, sent, answered) {
                    // The answer came after the TTL: the waiter finds out what is left of the lease.
                    Ok(lease) if lease.is_over(answered) => self.settle(Settled::Uncertain),
                    Ok(lease) => {
                        self.settled = true;
                        self.deliver(lease);
                    }
                    Err(_) => {
                        // The waiter tries by itself, and gets the error if the store has not recovered.
                        self.settle(Settled::LeaseGone);
                        drop(Undo::new(&self.shared, &self.home, &self.key, &terms));
                    }
                }
                Ok(true)
            }
            Ok(None) => {
                self.settle(Settled::LeaseGone);
                Ok(false)
            }
            Err(error) => {
                if changed_nothing(error.code()) {
                    self.settle(Settled::NothingChanged);
                }
                Err(error)
            }
        }
    }

    fn deliver(&self, lease: Arc<HeldLease>) {
        let holder = lease.holder();
        let (from, tracked) = (self.home.clone(), self.shared.background.token());
        let grant = Grant { lease, from, tracked };
        let undelivered = self.shared.queues.update(&self.key, |queue| {
            queue.handed_off(self.receiver.number, holder, grant, Instant::now())
        });
        if let Some(grant) = undelivered {
            give_back(&self.shared, grant);
        }
    }

    fn settle(&mut self, outcome: Settled) {
        self.settled = true;
        let number = self.receiver.number;
        let gone = (outcome == Settled::LeaseGone).then_some(self.holder);
        let uncertain = outcome == Settled::Uncertain;
        let present = self
            .shared
            .queues
            .update(&self.key, |queue| queue.not_handed_off(number, gone, uncertain));
        if uncertain && !present {
            let terms = &self.receiver.terms;
            drop(Undo::new(&self.shared, &self.home, &self.key, terms));
        }
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(Settled::Uncertain);
        }
    }
}

/// Releases a lease whose waiter left before it picked the lease up.
pub(crate) fn give_back(shared: &Arc<Shared>, grant: Grant) {
    let Grant { lease, from, tracked } = grant;
    release_in_background(shared, &lease, &from);
    drop(tracked);
}

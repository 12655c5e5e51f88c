//! What a queue takes and returns: plain values.

use std::task::Waker;
use std::time::Duration;

use syncguard_core::{Error, Fence, LockId, Ttl};
use tokio::time::Instant;

use crate::subscription::Subscription;

/// Names a waiter or a holder. It is never used again.
pub(crate) type Number = u64;

/// What a waiter asks for.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// One id for all its attempts, so that one whose reply was lost finds its own lease (A4).
    pub(crate) id: LockId,
    pub(crate) ttl: Ttl,
    pub(crate) max_hold: Option<Duration>,
    /// Whether a release in this process may hand its lease off to this waiter.
    pub(crate) takes_handoff: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) number: Number,
    pub(crate) fence: Fence,
    pub(crate) deadline: Instant,
}

/// What the last attempt for the key learned.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Held,
    Failed(Error),
}

/// Where a waiter stands.
#[derive(Debug)]
pub(crate) enum Position<G> {
    /// It was served.
    Granted(G),
    /// A handoff to it had no answer.
    Uncertain,
    /// Others are before it, or it is being served.
    Behind,
    /// It is first. The key is held until `held_until`, as far as this process knows, and other
    /// processes have their turn until `yields_until`.
    First {
        held_until: Option<Instant>,
        yields_until: Option<Instant>,
        subscription: Option<Subscription>,
    },
}

/// What a notification means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The key may be free for this process, or it is the turn of others.
    Relevant,
    /// It tells of an earlier release than the grant that this process holds.
    Stale,
}

/// The first waiter, to whom a lease is handed off.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) number: Number,
    pub(crate) terms: Terms,
}

/// What a waiter that leaves the queue leaves behind.
#[derive(Debug)]
pub(crate) struct Left<G> {
    pub(crate) grant: Option<G>,
    pub(crate) uncertain: bool,
}

/// What must happen after the mutex is free.
#[derive(Debug, Default)]
#[must_use = "somebody must be woken"]
pub(crate) struct Effects {
    pub(crate) wake: [Option<Waker>; 2],
    /// To be dropped.
    pub(crate) subscriptions: [Option<Subscription>; 2],
    pub(crate) waker: Option<Waker>,
}

impl Effects {
    pub(super) fn wake(first: Option<Waker>, second: Option<Waker>) -> Self {
        Self { wake: [first, second], ..Self::default() }
    }
}

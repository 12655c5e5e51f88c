//! A waiter's membership in a queue. When it is dropped, the waiter leaves and cleans up.

use std::future::{Future, poll_fn};
use std::mem;
use std::sync::Arc;
use std::task::Poll;

use syncguard_core::{Error, Key};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::ending;
use crate::give_up::Known;
use crate::queue::{Heard, Number, Position, Terms};
use crate::queues::next_number;
use crate::shared::{Grant, Shared};
use crate::subscription::Subscription;
use crate::undo::Undo;

/// A waiter's own view of its queue.
pub(crate) struct Ticket<'a> {
    shared: &'a Arc<Shared>,
    home: &'a Handle,
    key: &'a Key,
    terms: &'a Terms,
    pub(crate) number: Number,
    joined: Instant,
    /// The first attempt began when the waiter joined.
    begun: bool,
    /// Kept from one attempt to the next, and passed on to the next waiter.
    pub(crate) subscription: Option<Subscription>,
    /// For attempts without an answer. It acts when it is dropped, so on every way out but a grant.
    pub(crate) unanswered: Option<Undo>,
    /// The queue has let this waiter go already.
    left: bool,
}

impl<'a> Ticket<'a> {
    /// Joins the end of the queue.
    pub(crate) fn join(
        shared: &'a Arc<Shared>,
        home: &'a Handle,
        key: &'a Key,
        terms: &'a Terms,
        now: Instant,
    ) -> Self {
        let (number, begun) = shared.queues.with(key, |queue| {
            // Made under the mutex, so that the order of the numbers is the order in the queue.
            let number = next_number();
            (number, queue.join(number, terms.clone(), now))
        });
        Self {
            shared,
            home,
            key,
            terms,
            number,
            joined: now,
            begun,
            subscription: None,
            unanswered: None,
            left: false,
        }
    }

    pub(crate) fn position(&mut self, now: Instant) -> Position<Grant> {
        if self.begun {
            return Position::First { held_until: None, yields_until: None, subscription: None };
        }
        let position = self.shared.queues.with(self.key, |queue| queue.position(self.number, now));
        self.left = matches!(position, Position::Granted(_));
        position
    }

    /// Resolves when the position may have changed.
    pub(crate) fn woken(&self) -> impl Future<Output = ()> + Send + use<'a> {
        let (shared, key, number) = (self.shared, self.key, self.number);
        poll_fn(move |cx| {
            // To clone or to drop a waker is code of other modules, so neither happens under the mutex.
            let waker = cx.waker().clone();
            let woken = shared.queues.update(key, |queue| queue.poll_woken(number, waker));
            if woken { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Goes on with the subscription of the waiter before.
    pub(crate) fn take_over(&mut self, subscription: Option<Subscription>) {
        self.subscription = subscription.or(self.subscription.take());
    }

    pub(crate) fn notified(&self, now: Instant) -> Heard {
        self.shared.queues.with(self.key, |queue| queue.notified(now))
    }

    pub(crate) fn listens_from(&self, soon: Instant) {
        self.shared.queues.with(self.key, |queue| queue.listens_from(soon));
    }

    pub(crate) fn begin_attempt(&mut self) -> bool {
        mem::take(&mut self.begun)
            || self.shared.queues.with(self.key, |queue| queue.begin_attempt(self.number))
    }

    /// An attempt was granted, which took this waiter out of the queue.
    pub(crate) const fn was_granted(&mut self) {
        self.left = true;
    }

    pub(crate) fn attempt_held(&self, now: Instant, until: Instant) {
        self.shared.queues.with(self.key, |queue| queue.attempt_held(self.number, now, until));
    }

    pub(crate) fn attempt_failed(&self, now: Instant, error: Error) {
        self.shared.queues.with(self.key, |queue| queue.attempt_failed(self.number, now, error));
    }

    /// Keeps what undoes an attempt. One is enough, because all are for the same id.
    pub(crate) fn remember(&mut self, undo: Undo) {
        if let Some(earlier) = self.unanswered.replace(undo) {
            earlier.disarm();
        }
    }

    /// What is known of the key, for a waiter that gives up.
    pub(crate) fn known(&self, now: Instant) -> Known {
        self.shared.queues.with(self.key, |queue| Known {
            answer: queue.answer(self.joined, now),
            held_until: queue.held_until(now),
            held_here: queue.is_used(now),
        })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let subscription = self.subscription.take();
        if self.left && subscription.is_none() {
            return;
        }
        let left =
            self.shared.queues.update(self.key, |queue| queue.leave(self.number, subscription));
        if let Some(grant) = left.grant {
            ending::give_back(self.shared, grant);
        }
        if left.uncertain {
            drop(Undo::new(self.shared, self.home, self.key, self.terms));
        }
    }
}

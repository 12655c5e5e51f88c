//! The waiters of one key in this process, first come first served, and what they know of the key.
//!
//! Only the first waiter talks to the backend. If the lease is held in this process too, its release
//! serves the first waiter directly. Nothing here does I/O, wakes a task or drops a value of another
//! module: each method returns what must be woken and dropped after the mutex is free.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;
use std::time::Duration;

use syncguard_core::{Error, Fence, LockId, Ttl};
use tokio::time::Instant;

use crate::subscription::Subscription;
use crate::turns::{Peers, Turns};

/// Names a waiter or a holder. It is never used again.
pub(crate) type Number = u64;

/// The queue of one key. `G` is a lease that was handed off.
#[derive(Debug)]
pub(crate) struct Queue<G> {
    waiters: BTreeMap<Number, Waiter>,
    /// Granted leases that their waiters have not picked up.
    grants: BTreeMap<Number, G>,
    /// The lease by which this process holds the key.
    holder: Option<Holder>,
    /// Its guard has let go, and the release is under way.
    releasing: bool,
    /// When the current lease expires, as last reported.
    held_until: Option<Instant>,
    /// Until when other processes have their turn.
    yields_until: Option<Instant>,
    /// The key was released in this process since the last attempt began.
    released: bool,
    answer: Option<(Instant, Answer)>,
    /// An answer that was replaced. Its error holds a value of the driver, which is dropped after the
    /// mutex is free.
    outdated: Option<(Instant, Answer)>,
    /// Whether the first waiter listens for notifications, or left its subscription to the next one.
    listening: bool,
    subscription: Option<Subscription>,
    turns: Turns,
}

/// What a waiter asks for.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// One id for all its attempts, so that one whose reply was lost finds its own lease (A4).
    pub(crate) id: LockId,
    pub(crate) ttl: Ttl,
    pub(crate) max_hold: Option<Duration>,
}

#[derive(Debug)]
struct Waiter {
    terms: Terms,
    phase: Phase,
    /// A handoff to this waiter had no answer: its id may hold the key.
    uncertain: bool,
    woken: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// An attempt is under way. A lease that was handed off meanwhile could be released again before
    /// the attempt reaches the backend, which would then grant the key to nobody.
    Attempting,
    /// A lease is being handed off to it. An attempt would have the same effect.
    Receiving,
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
    fn wake(first: Option<Waker>, second: Option<Waker>) -> Self {
        Self { wake: [first, second], ..Self::default() }
    }
}

impl<G> Queue<G> {
    /// A waiter joins the end of the queue. True if it is first and the key seems to be free: then its
    /// first attempt begins.
    pub(crate) fn join(&mut self, number: Number, terms: Terms, now: Instant) -> bool {
        let begins = self.waiters.is_empty()
            && self.held_until(now).is_none()
            && self.yields_until.is_none_or(|until| until <= now);
        let phase = if begins { Phase::Attempting } else { Phase::Waiting };
        self.released &= !begins;
        let (uncertain, woken) = (false, false);
        self.waiters.insert(number, Waiter { terms, phase, uncertain, woken, waker: None });
        begins
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody needs this queue any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.grants.is_empty() && self.holder.is_none()
    }

    pub(crate) fn position(&mut self, number: Number, now: Instant) -> Position<G> {
        if let Some(grant) = self.grants.remove(&number) {
            return Position::Granted(grant);
        }
        match self.waiters.first_entry() {
            Some(mut first) if *first.key() == number => {
                let first = first.get_mut();
                if mem::take(&mut first.uncertain) {
                    return Position::Uncertain;
                }
                if first.phase == Phase::Receiving {
                    return Position::Behind;
                }
            }
            _ => return Position::Behind,
        }
        Position::First {
            held_until: self.held_until(now),
            yields_until: self.yields_until,
            subscription: self.subscription.take(),
        }
    }

    /// When the current lease ends, as far as this process knows. Once the holder's time is over,
    /// only the report of an attempt counts.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        let later = |moment: &Instant| *moment > now;
        let deadline = self.holder.map(|holder| holder.deadline).filter(later);
        deadline.or(self.held_until.filter(later))
    }

    /// Whether this process holds the key.
    fn holds(&self, now: Instant) -> bool {
        self.holder.is_some_and(|holder| holder.deadline > now)
    }

    /// Whether a guard of this process holds the key and has not begun to release it.
    pub(crate) fn is_used(&self, now: Instant) -> bool {
        self.holds(now) && !self.releasing
    }

    /// The holder begins to release the key.
    pub(crate) fn begin_release(&mut self, holder: Number) {
        self.releasing |= self.holder.is_some_and(|held| held.number == holder);
    }

    fn hold(&mut self, holder: Holder) {
        self.holder = Some(holder);
        self.releasing = false;
    }

    /// What the last attempt learned, for a waiter that joined at `joined`. A failure before that says
    /// nothing to it, because the server may be well again. A lease that is still running does.
    pub(crate) fn answer(&self, joined: Instant, now: Instant) -> Option<Answer> {
        let (at, answer) = self.answer.as_ref()?;
        let yields = self.yields_until.is_some_and(|until| until > now);
        let runs = matches!(answer, Answer::Held) && (self.held_until(now).is_some() || yields);
        (*at >= joined || runs).then(|| answer.clone())
    }

    fn learn(&mut self, now: Instant, answer: Answer) {
        self.outdated = self.answer.replace((now, answer));
    }

    /// What must be dropped after the mutex is free.
    pub(crate) const fn take_outdated(&mut self) -> Option<(Instant, Answer)> {
        self.outdated.take()
    }

    /// An attempt of the first waiter begins. False if it must not: a lease is being handed off to
    /// it, or just was.
    pub(crate) fn begin_attempt(&mut self, number: Number) -> bool {
        self.released = false;
        let waiter = self.waiters.get_mut(&number);
        let waiter = waiter.filter(|waiter| waiter.phase == Phase::Waiting && !waiter.uncertain);
        waiter.map(|waiter| waiter.phase = Phase::Attempting).is_some()
    }

    /// The attempt found the key held until then.
    pub(crate) fn attempt_held(&mut self, number: Number, now: Instant, until: Instant) {
        self.learn(now, Answer::Held);
        self.turns.refused(now);
        // If a local release came during the attempt, the reported expiry is outdated.
        self.held_until = Some(until).filter(|_| !self.released);
        self.end_attempt(number);
    }

    pub(crate) fn attempt_failed(&mut self, number: Number, now: Instant, error: Error) {
        self.learn(now, Answer::Failed(error));
        self.held_until = None;
        self.end_attempt(number);
    }

    fn end_attempt(&mut self, number: Number) {
        if let Some(waiter) = self.waiters.get_mut(&number) {
            waiter.phase = Phase::Waiting;
        }
    }

    /// An attempt was granted. Its waiter, if it was one's, leaves the queue.
    pub(crate) fn granted(
        &mut self,
        waiter: Option<Number>,
        holder: Holder,
        now: Instant,
    ) -> Effects {
        // The answer to an abandoned attempt may come after a newer grant.
        if self.holder.is_none_or(|held| held.fence <= holder.fence) {
            self.hold(holder);
        }
        self.learn(now, Answer::Held);
        self.turns.granted(now);
        let Some(waiter) = waiter.and_then(|waiter| self.waiters.remove(&waiter)) else {
            return Effects::default();
        };
        Effects { waker: waiter.waker, ..Effects::wake(self.wake_first(), None) }
    }

    /// The lease was extended, or is about to be.
    pub(crate) fn extended(&mut self, holder: Holder) {
        if let Some(held) = self.holder.as_mut().filter(|held| held.number == holder.number) {
            held.deadline = holder.deadline;
        }
    }

    /// The waiter that a release may serve directly: none if nobody can be served, or if other
    /// processes have their turn.
    pub(crate) fn receiver(&mut self, now: Instant, peers: Peers) -> Option<Receiver> {
        let (&number, first) = self.waiters.iter_mut().next()?;
        if first.phase != Phase::Waiting || self.turns.is_over(now, peers) {
            return None;
        }
        first.phase = Phase::Receiving;
        Some(Receiver { number, terms: first.terms.clone() })
    }

    /// The lease was handed off. The grant comes back if its waiter has left.
    pub(crate) fn handed_off(
        &mut self,
        receiver: Number,
        holder: Holder,
        grant: G,
        now: Instant,
    ) -> (Option<G>, Effects) {
        self.hold(holder);
        self.learn(now, Answer::Held);
        self.turns.handed_off(now);
        let Some(waiter) = self.waiters.remove(&receiver) else {
            return (Some(grant), Effects::default());
        };
        self.grants.insert(receiver, grant);
        let mut effects = Effects::wake(waiter.waker, self.wake_first());
        effects.subscriptions[0] = self.stop_listening();
        (None, effects)
    }

    /// A handoff granted nothing, because the lease of `gone` had ended. Or nobody knows whether it
    /// granted something: then the waiter clears that up. False if it has left.
    pub(crate) fn not_handed_off(
        &mut self,
        receiver: Number,
        gone: Option<Number>,
        uncertain: bool,
    ) -> (bool, Effects) {
        if let Some(gone) = gone {
            self.forget(gone);
        }
        self.note_release();
        let waiter = self.waiters.get_mut(&receiver);
        let present = waiter.is_some();
        if let Some(waiter) = waiter {
            waiter.phase = Phase::Waiting;
            // An earlier handoff to it may still be uncertain.
            waiter.uncertain |= uncertain;
        }
        (present, Effects::wake(self.wake_first(), None))
    }

    /// The holder released the key. If the turn of this process is over, its first waiter yields, so
    /// that others can acquire.
    pub(crate) fn released(&mut self, holder: Number, now: Instant, peers: Peers) -> Effects {
        let over = self.turns.is_over(now, peers);
        if !over {
            self.turns.go_on();
        }
        self.learn(now, Answer::Held);
        self.forget(holder);
        self.note_release();
        if over {
            self.yields_until = self.turns.yield_key(now, peers, self.listening);
        }
        Effects::wake(self.wake_first(), None)
    }

    /// A lease of this process is gone without a release: others may have the key, or nobody.
    pub(crate) fn freed(&mut self, holder: Option<Number>) -> Effects {
        if let Some(holder) = holder {
            self.forget(holder);
        }
        self.note_release();
        Effects::wake(self.wake_first(), None)
    }

    /// This process no longer looks after the lease, unless it holds the key by another one by now.
    pub(crate) fn forget(&mut self, holder: Number) {
        self.holder = self.holder.filter(|held| held.number != holder);
    }

    fn note_release(&mut self) {
        self.held_until = None;
        self.released = true;
    }

    /// A notification came.
    pub(crate) fn notified(&mut self, now: Instant) -> Heard {
        if self.holds(now) {
            return Heard::Stale;
        }
        self.held_until = None;
        self.yields_until = self.turns.notified(now);
        Heard::Relevant
    }

    /// The first waiter listens from here on. A release may have come before that, so what is known
    /// of the lease counts only until `soon`.
    pub(crate) fn listens_from(&mut self, soon: Instant) {
        self.listening = true;
        self.held_until = self.held_until.map(|until| until.min(soon));
    }

    /// The subscription that a waiter left to the next one, if there is no next one.
    fn stop_listening(&mut self) -> Option<Subscription> {
        if !self.waiters.is_empty() {
            return None;
        }
        self.listening = false;
        self.subscription.take()
    }

    /// A waiter leaves. Its subscription goes to the next one.
    pub(crate) fn leave(
        &mut self,
        number: Number,
        subscription: Option<Subscription>,
    ) -> (Left<G>, Effects) {
        let was_first = self.waiters.keys().next() == Some(&number);
        let waiter = self.waiters.remove(&number);
        let left = Left {
            grant: self.grants.remove(&number),
            uncertain: waiter.as_ref().is_some_and(|waiter| waiter.uncertain),
        };
        let waker = waiter.and_then(|waiter| waiter.waker);
        let mut effects = Effects { waker, ..Effects::default() };
        if self.waiters.is_empty() {
            effects.subscriptions = [subscription, self.stop_listening()];
        } else if was_first || subscription.is_some() {
            if let Some(subscription) = subscription {
                effects.subscriptions[0] = self.subscription.replace(subscription);
            }
            self.listening |= self.subscription.is_some();
            effects.wake[0] = self.wake_first();
        }
        (left, effects)
    }

    /// Whether the waiter was woken since it was last asked. If not, `waker` is called then.
    pub(crate) fn poll_woken(&mut self, number: Number, waker: Waker) -> (bool, Effects) {
        let Some(waiter) = self.waiters.get_mut(&number) else {
            return (true, Effects { waker: Some(waker), ..Effects::default() });
        };
        let woken = mem::take(&mut waiter.woken);
        let unused = if woken { Some(waker) } else { waiter.waker.replace(waker) };
        (woken, Effects { waker: unused, ..Effects::default() })
    }

    fn wake_first(&mut self) -> Option<Waker> {
        let first = self.waiters.values_mut().next()?;
        first.woken = true;
        first.waker.take()
    }
}

impl<G> Default for Queue<G> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
            grants: BTreeMap::new(),
            holder: None,
            releasing: false,
            held_until: None,
            yields_until: None,
            released: false,
            answer: None,
            outdated: None,
            listening: false,
            subscription: None,
            turns: Turns::default(),
        }
    }
}

#[cfg(test)]
mod tests;

//! The waiters of one key in this process, first come first served, and what they know of the key.
//!
//! Only the first waiter talks to the backend. If the lease is held in this process too, its release
//! serves the first waiter directly. Nothing here does I/O, wakes a task or drops a value of another
//! module: each method returns what must be woken and dropped after the mutex is free.

mod holder;
mod values;

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use syncguard_core::Error;
use tokio::time::Instant;

pub(crate) use self::values::{
    Answer, Effects, Heard, Holder, Left, Number, Position, Receiver, Terms,
};
use crate::subscription::Subscription;
use crate::turns::Turns;

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

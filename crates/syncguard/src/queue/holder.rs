//! The holder's side of a queue: the lease by which this process holds the key, and who is next.

use tokio::time::Instant;

use super::values::{Answer, Effects, Holder, Number, Receiver};
use super::{Phase, Queue};
use crate::turns::Peers;

impl<G> Queue<G> {
    /// Whether this process holds the key.
    pub(super) fn holds(&self, now: Instant) -> bool {
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
        let takes_it = first.phase == Phase::Waiting && first.terms.takes_handoff;
        if !takes_it || self.turns.is_over(now, peers) {
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
}

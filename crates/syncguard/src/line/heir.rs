//! The first in line, as whoever serves it sees it.

use std::sync::Arc;

use syncguard_core::{Key, LockId};

use super::{Delivery, Line, Seat, State, lock, settle};
use crate::LockGuard;
use crate::attempt::{Attempts, Undo};
use crate::hold::Hold;

/// The first in line, while a lease is handed over to it. If this is dropped before the outcome is
/// known, what may have been granted is undone, or found by the heir's own attempt.
#[derive(Debug)]
pub(crate) struct Heir {
    key: Key,
    number: u64,
    seat: Arc<Seat>,
    undo: Option<Undo>,
}

impl Heir {
    pub(super) fn new(key: Key, number: u64, seat: Arc<Seat>) -> Self {
        let undo = Some(Undo::new(&seat.attempts, &key, &seat.id));
        Self { key, number, seat, undo }
    }

    pub(crate) fn id(&self) -> &LockId {
        &self.seat.id
    }

    pub(crate) fn attempts(&self) -> &Attempts {
        &self.seat.attempts
    }

    /// The lease was granted. If the heir has left in the meantime, it is released.
    pub(crate) fn granted(mut self, hold: &Arc<Hold>) {
        self.disarm();
        let delivery = Delivery::Granted(
            LockGuard::new(hold.clone()),
            self.seat.attempts.manager().background.token(),
        );
        self.deliver(Some(delivery), |line| {
            line.holder = Arc::downgrade(hold);
            line.failure = None;
            line.streak.handed_off();
        });
    }

    /// Nothing was granted.
    pub(crate) fn refused(mut self) {
        self.disarm();
        self.deliver(None, Line::tell_of_release);
    }

    fn disarm(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo.disarm();
        }
    }

    fn deliver(&self, delivery: Option<Delivery>, note: impl FnOnce(&mut Line)) {
        let mut lines = lock(&self.seat.attempts.manager().lines.0);
        let line = lines.entry(self.key.clone()).or_default();
        let mut undelivered = delivery;
        if let Some(mine) = line.places.get_mut(&self.number) {
            mine.state = State::Waiting;
            if matches!(undelivered, Some(Delivery::Granted(..))) {
                line.places.remove(&self.number);
            }
            if let Some(delivery) = undelivered.take() {
                let mut delivered = lock(&self.seat.delivered);
                *delivered = Some(delivery.after(delivered.take()));
            }
        }
        note(line);
        settle(lines, &self.key, true);
        self.seat.woken.notify_one();
        drop(undelivered);
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.deliver(Some(Delivery::Unsure(undo)), Line::tell_of_release);
        }
    }
}

//! Who in this process waits for a key: one line per key, first come first served.
//!
//! Only the first in line talks to the backend; the others cost no more than a place in a map. When
//! the lease is held in this process too, its release serves the first in line directly.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{mem, ptr};

use syncguard_core::{ErrorCode, Key, LockId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::LockGuard;
use crate::attempt::{Attempts, Undo};
use crate::hint::Hint;
use crate::hold::Hold;
use crate::streak::Streak;

/// The lines of all keys that are waited for, or held by a guard of this manager.
///
/// No guard, and no last handle of a hold, may be dropped under its mutex: both come back to it.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<Key, Line>>);

#[derive(Debug, Default)]
struct Line {
    /// By number, the lowest first.
    places: BTreeMap<u64, Entry>,
    next: u64,
    /// What a guard of this manager holds the key by.
    holder: Weak<Hold>,
    /// Until when the key is held by whomever, as far as the first in line was told.
    held_until: Option<Instant>,
    /// The key was released in this process since the last attempt began.
    freed: bool,
    /// How the last attempt failed, if it did.
    failure: Option<ErrorCode>,
    /// Whether the first in line listens to hints, or did and left the next one its interest.
    listens: bool,
    hint: Option<Hint>,
    streak: Streak,
}

#[derive(Debug)]
struct Entry {
    seat: Arc<Seat>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// An attempt is under way. A lease that was handed over meanwhile could be released again
    /// before the attempt reaches the backend, which would then grant the key to nobody.
    Trying,
    /// A lease is being handed over. An attempt would have the same effect.
    Served,
}

/// What a waiter and those who serve it have in common.
#[derive(Debug)]
struct Seat {
    id: LockId,
    attempts: Attempts,
    woken: Notify,
    delivered: Mutex<Option<Delivery>>,
}

#[derive(Debug)]
enum Delivery {
    Granted(LockGuard),
    Unsure(Undo),
}

/// How things stand for a waiter.
#[derive(Debug)]
pub(crate) enum Look {
    /// The lock was handed over.
    Granted(LockGuard),
    /// It may have been; with what undoes that.
    Unsure(Undo),
    /// Somebody else is first, or is handing over a lease.
    Wait,
    /// The first in line, and the key is held until then as far as is known.
    Held(Instant),
    /// The first in line, and nothing speaks against an attempt.
    Try,
}

impl Lines {
    /// A place at the end of the line for a key.
    pub(crate) fn join(&self, key: &Key, id: &LockId, attempts: &Attempts) -> Place<'_> {
        let seat = Arc::new(Seat {
            id: id.clone(),
            attempts: attempts.clone(),
            woken: Notify::new(),
            delivered: Mutex::default(),
        });
        let mut lines = lock(&self.0);
        let line = lines.entry(key.clone()).or_default();
        let number = line.next;
        line.next += 1;
        line.places.insert(number, Entry { seat: seat.clone(), state: State::Waiting });
        Place { lines: self, key: key.clone(), number, seat, hint: None }
    }

    /// How many stand in line, for whatever key.
    pub(crate) fn waiters(&self) -> usize {
        lock(&self.0).values().map(|line| line.places.len()).sum()
    }

    /// An attempt was granted.
    pub(crate) fn granted(&self, hold: &Arc<Hold>) {
        let mut lines = lock(&self.0);
        let line = lines.entry(hold.granted().key().clone()).or_default();
        line.holder = Arc::downgrade(hold);
        line.failure = None;
        line.streak.granted();
    }

    /// The first in line, to be handed the lease of `hold` instead of a release; none if it is the
    /// turn of others, who hear of a release or not.
    pub(crate) fn heir(&self, hold: &Hold, told: bool) -> Option<Heir> {
        let key = hold.granted().key();
        let mut lines = lock(&self.0);
        let line = lines.get_mut(key)?;
        let (&number, first) = line.places.iter_mut().next()?;
        if first.state != State::Waiting || line.streak.is_over(told) {
            return None;
        }
        first.state = State::Served;
        let (key, seat) = (key.clone(), first.seat.clone());
        let undo = Some(Undo::new(&seat.attempts, &key, &seat.id));
        Some(Heir { key, number, seat, undo })
    }

    /// The lease of `hold` was released, and others hear of it or not. When it is their turn, the
    /// first in line hears of it as they do, or gives them a head start.
    pub(crate) fn released(&self, hold: &Hold, told: bool) {
        let key = hold.granted().key();
        let mut lines = lock(&self.0);
        let Some(line) = lines.get_mut(key) else {
            return;
        };
        let over = line.streak.is_over(told);
        if !over {
            line.streak.goes_on();
        }
        line.tell_of_release();
        if over && (line.listens || !told) {
            line.held_until = Some(Streak::others_until(told));
        }
        remove_if_idle(&mut lines, key);
    }

    /// The lease of `hold` was lost, so somebody else may have the key, or nobody.
    pub(crate) fn lost(&self, hold: &Hold) {
        if let Some(line) = lock(&self.0).get_mut(hold.granted().key()) {
            line.tell_of_release();
        }
    }

    /// Nobody has `hold` in hand any more.
    pub(crate) fn forget(&self, hold: &Hold) {
        let key = hold.granted().key();
        let mut lines = lock(&self.0);
        if let Some(line) = lines.get_mut(key)
            && ptr::eq(line.holder.as_ptr(), hold)
        {
            line.holder = Weak::new();
            remove_if_idle(&mut lines, key);
        }
    }
}

impl Line {
    fn forget_holder(&mut self) {
        self.holder = Weak::new();
        self.held_until = None;
    }

    fn tell_of_release(&mut self) {
        self.forget_holder();
        self.freed = true;
        self.wake_first();
    }

    fn wake_first(&self) {
        if let Some(first) = self.places.values().next() {
            first.seat.woken.notify_one();
        }
    }
}

/// What a waiter was stirred by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stir {
    /// Things stand differently now.
    Woken,
    /// The key may be free.
    Hinted,
}

/// A place in line. When it is dropped, those behind move up.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    lines: &'a Lines,
    key: Key,
    number: u64,
    seat: Arc<Seat>,
    hint: Option<Hint>,
}

impl Place<'_> {
    /// How things stand.
    pub(crate) fn look(&mut self) -> Look {
        // Declared first, so that it is dropped after the mutex is free.
        let holder;
        let mut lines = lock(&self.lines.0);
        match lock(&self.seat.delivered).take() {
            Some(Delivery::Granted(guard)) => return Look::Granted(guard),
            Some(Delivery::Unsure(undo)) => return Look::Unsure(undo),
            None => {}
        }
        let Some(line) = lines.get_mut(&self.key) else {
            return Look::Wait;
        };
        match line.places.iter().next() {
            Some((number, first)) if *number == self.number && first.state != State::Served => {}
            _ => return Look::Wait,
        }
        if let Some(hint) = line.hint.take() {
            self.hint = Some(hint);
        }
        holder = line.holder.upgrade();
        let until = holder.as_ref().map(|hold| hold.deadline()).or(line.held_until);
        until.filter(|until| *until > Instant::now()).map_or(Look::Try, Look::Held)
    }

    /// Resolves when it is time to look again, or with a hint where they are listened to.
    pub(crate) async fn stirred(&mut self, hints: bool) -> Stir {
        let hint = async {
            match &mut self.hint {
                Some(hint) if hints => hint.await,
                _ => pending().await,
            }
        };
        tokio::select! {
            () = self.seat.woken.notified() => Stir::Woken,
            () = hint => Stir::Hinted,
        }
    }

    /// Whether there is an interest in hints.
    pub(crate) const fn listens(&self) -> bool {
        self.hint.is_some()
    }

    /// Takes an interest in hints, in place of the one that there was.
    pub(crate) fn listen(&mut self, hint: Hint) {
        self.hint = Some(hint);
        self.with_line(|line, _| line.listens = true);
    }

    /// What was known of the holder is not to be relied on any more.
    pub(crate) fn doubt(&self) {
        self.with_line(|line, _| line.forget_holder());
    }

    /// Before an attempt; false if a lease is being handed over.
    pub(crate) fn begin(&self) -> bool {
        self.with_line(|line, number| {
            line.freed = false;
            let mine = line.places.get_mut(&number).filter(|mine| mine.state == State::Waiting);
            mine.map(|mine| mine.state = State::Trying).is_some()
        })
        .unwrap_or(false)
    }

    /// After an attempt that found the key held.
    pub(crate) fn held(&self, until: Instant) {
        self.after_attempt(None, Some(until));
    }

    /// After an attempt that failed.
    pub(crate) fn failed(&self, code: ErrorCode) {
        self.after_attempt(Some(code), None);
    }

    fn after_attempt(&self, failure: Option<ErrorCode>, until: Option<Instant>) {
        self.with_line(|line, number| {
            line.failure = failure;
            line.held_until = until.filter(|_| !line.freed);
            if let Some(mine) = line.places.get_mut(&number) {
                mine.state = State::Waiting;
            }
        });
    }

    /// How the last attempt of this line failed, if it did.
    pub(crate) fn failure(&self) -> Option<ErrorCode> {
        self.with_line(|line, _| line.failure).flatten()
    }

    fn with_line<T>(&self, act: impl FnOnce(&mut Line, u64) -> T) -> Option<T> {
        lock(&self.lines.0).get_mut(&self.key).map(|line| act(line, self.number))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines.0);
        // Both are dropped after the mutex is free: what was handed over too late is released.
        let delivered = lock(&self.seat.delivered).take();
        let mut hint = self.hint.take();
        if let Some(line) = lines.get_mut(&self.key) {
            let was_first = line.places.keys().next() == Some(&self.number);
            line.places.remove(&self.number);
            if line.places.is_empty() {
                line.listens = false;
                hint = hint.or(line.hint.take());
            } else if was_first || hint.is_some() {
                mem::swap(&mut line.hint, &mut hint);
                line.wake_first();
            }
            remove_if_idle(&mut lines, &self.key);
        }
        drop(lines);
        drop((delivered, hint));
    }
}

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
    pub(crate) fn id(&self) -> &LockId {
        &self.seat.id
    }

    pub(crate) fn attempts(&self) -> &Attempts {
        &self.seat.attempts
    }

    /// The lease was granted. If the heir has left in the meantime, it is released.
    pub(crate) fn granted(mut self, hold: &Arc<Hold>) {
        self.disarm();
        let delivery = Delivery::Granted(LockGuard::new(hold.clone()));
        self.settle(Some(delivery), |line| {
            line.holder = Arc::downgrade(hold);
            line.failure = None;
            line.streak.handed_over();
        });
    }

    /// Nothing was granted.
    pub(crate) fn refused(mut self) {
        self.disarm();
        self.settle(None, Line::tell_of_release);
    }

    fn disarm(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo.disarm();
        }
    }

    fn settle(&self, delivery: Option<Delivery>, note: impl FnOnce(&mut Line)) {
        let mut lines = lock(&self.seat.attempts.manager().lines.0);
        let line = lines.entry(self.key.clone()).or_default();
        let mut undelivered = delivery;
        // The line may be another one by now, with the same numbers.
        let mine = line.places.get_mut(&self.number);
        if let Some(mine) = mine.filter(|mine| Arc::ptr_eq(&mine.seat, &self.seat)) {
            mine.state = State::Waiting;
            if matches!(undelivered, Some(Delivery::Granted(_))) {
                line.places.remove(&self.number);
            }
            *lock(&self.seat.delivered) = undelivered.take();
            self.seat.woken.notify_one();
        }
        note(line);
        line.wake_first();
        remove_if_idle(&mut lines, &self.key);
        drop(lines);
        drop(undelivered);
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.settle(Some(Delivery::Unsure(undo)), Line::tell_of_release);
        }
    }
}

fn remove_if_idle(lines: &mut HashMap<Key, Line>, key: &Key) {
    let idle = |line: &Line| line.places.is_empty() && line.holder.strong_count() == 0;
    if lines.get(key).is_some_and(idle) {
        lines.remove(key);
    }
}

/// Nothing under these mutexes can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

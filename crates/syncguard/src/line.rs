//! Who in this process waits for a key: one line per key, first come first served.
//!
//! Only the first in line talks to the backend; the others cost no more than a place in a map. When
//! the lease is held in this process too, its release serves the first in line directly.

mod heir;
mod notification;
mod place;
mod streak;

use std::collections::{BTreeMap, HashMap};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use syncguard_core::{ErrorCode, Key, LockId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::streak::Streak;
use crate::LockGuard;
use crate::attempt::{Attempts, Undo};
use crate::hold::Hold;

pub(crate) use self::heir::Heir;
pub(crate) use self::notification::Notification;
pub(crate) use self::place::{Heard, Look, Place, Stir};

/// The lines of all keys that are waited for, or held by a guard of this manager.
///
/// No guard, no last handle of a hold, and no notification may be dropped under its mutex, and nobody woken:
/// they may come back to it.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<Key, Line>>);

#[derive(Debug, Default)]
struct Line {
    /// By number, the lowest first.
    places: BTreeMap<u64, Entry>,
    /// What a guard of this manager holds the key by.
    holder: Weak<Hold>,
    /// Until when the key is held by whomever, as far as the first in line was told.
    held_until: Option<Instant>,
    /// The key was released in this process since the last attempt began.
    freed: bool,
    /// How the last attempt failed, if it did.
    failure: Option<ErrorCode>,
    /// Whether the first in line listens to notifications, or did and left the next one its interest.
    listens: bool,
    notification: Option<Notification>,
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
    /// The token keeps shutdown waiting until the guard is in its owner's hands, or gone.
    Granted(LockGuard, #[expect(dead_code, reason = "it is there to be dropped")] TaskTrackerToken),
    Unsure(Undo),
}

impl Delivery {
    /// What is left to say after an earlier delivery that was not looked at. All are for the same
    /// id, so one undo is enough; and none is needed where the lease came after all.
    fn after(self, earlier: Option<Self>) -> Self {
        if let Some(Self::Unsure(undo)) = earlier {
            undo.disarm();
        }
        self
    }
}

/// The number of the next place: never used again, since a line may be gone before a place in it.
static NEXT: AtomicU64 = AtomicU64::new(0);

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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        line.places.insert(number, Entry { seat: seat.clone(), state: State::Waiting });
        Place::new(self, key.clone(), number, seat)
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
        Some(Heir::new(key.clone(), number, first.seat.clone()))
    }

    /// The lease of `hold` was released, and others hear of it or not. When it is their turn, the
    /// first in line rests, if it is told of theirs.
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
        line.forget_holder(hold);
        line.tell_of_release();
        if over {
            line.held_until = line.streak.rest(told, line.listens);
        }
        settle(lines, key, true);
    }

    /// A lease is gone, so somebody else may have the key, or nobody.
    pub(crate) fn freed(&self, key: &Key, hold: Option<&Hold>) {
        let mut lines = lock(&self.0);
        if let Some(line) = lines.get_mut(key) {
            if let Some(hold) = hold {
                line.forget_holder(hold);
            }
            line.tell_of_release();
            settle(lines, key, true);
        }
    }

    /// Nobody has `hold` in hand any more.
    pub(crate) fn forget(&self, hold: &Hold) {
        let key = hold.granted().key();
        let mut lines = lock(&self.0);
        if let Some(line) = lines.get_mut(key) {
            line.forget_holder(hold);
            settle(lines, key, false);
        }
    }
}

impl Line {
    /// Unless the key has another by now.
    fn forget_holder(&mut self, hold: &Hold) {
        if ptr::eq(self.holder.as_ptr(), hold) {
            self.holder = Weak::new();
        }
    }

    /// To be followed by a wake-up of the first in line.
    const fn tell_of_release(&mut self) {
        self.held_until = None;
        self.freed = true;
    }
}

/// Frees the mutex after a change. Ends a line that nobody needs any more, and wakes the first of one
/// that goes on, if that is to look again.
fn settle(mut lines: MutexGuard<'_, HashMap<Key, Line>>, key: &Key, wake_first: bool) {
    let idle = |line: &Line| line.places.is_empty() && line.holder.strong_count() == 0;
    let ended = if lines.get(key).is_some_and(idle) { lines.remove(key) } else { None };
    let first = lines.get(key).and_then(|line| line.places.values().next());
    let first = first.filter(|_| wake_first).map(|first| first.seat.clone());
    drop(lines);
    drop(ended);
    if let Some(first) = first {
        first.woken.notify_one();
    }
}

/// Nothing under these mutexes can panic halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

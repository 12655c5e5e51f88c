//! The queues of all keys, behind a few mutexes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use syncguard_core::Key;

use crate::queue::{Effects, Number, Queue};

/// The queues of all keys that a manager waits for or holds.
pub(crate) struct Queues<G> {
    /// Tasks that want different keys seldom meet in the same part.
    parts: [Part<G>; PARTS],
    /// Says which part has a key.
    spread: RandomState,
}

/// With one mutex, 16 busy tasks on two cores spent a tenth of their time waiting for it.
const PARTS: usize = 16;

struct Part<G> {
    /// Boxed, because a queue comes and goes with each lock that nobody waits for.
    queues: Mutex<HashMap<Key, Box<Queue<G>>, RandomState>>,
    /// The number of waiters and of queues, so that they can be read without the mutex.
    waiters: AtomicUsize,
    keys: AtomicUsize,
}

/// Numbers are unique in the process, because a queue may end before its waiters know it.
static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn next_number() -> Number {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<G> Queues<G> {
    /// Changes one queue, and then does what must not happen under the mutex: wakers and
    /// subscriptions are code of other modules, and may come back here.
    pub(crate) fn update<T>(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Queue<G>) -> (T, Effects),
    ) -> T {
        let (value, Effects { wake, subscriptions, waker }) = self.with(key, change);
        for waker in wake.into_iter().flatten() {
            waker.wake();
        }
        drop((subscriptions, waker));
        value
    }

    /// As [`update`](Self::update), for a change that wakes nobody.
    pub(crate) fn with<T>(&self, key: &Key, change: impl FnOnce(&mut Queue<G>) -> T) -> T {
        let part = self.part(key);
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        let mut queues = part.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, ended, outdated, change_in_waiters);
        match queues.entry(key.clone()) {
            Entry::Occupied(mut entry) => {
                let before = entry.get().len();
                value = change(entry.get_mut());
                outdated = entry.get_mut().take_outdated();
                change_in_waiters = entry.get().len().wrapping_sub(before);
                ended = entry.get().is_idle().then(|| entry.remove());
            }
            Entry::Vacant(entry) => {
                let mut queue = Box::<Queue<G>>::default();
                value = change(&mut queue);
                outdated = queue.take_outdated();
                change_in_waiters = queue.len();
                ended = if queue.is_idle() {
                    Some(queue)
                } else {
                    entry.insert(queue);
                    None
                };
            }
        }
        part.keys.store(queues.len(), Ordering::Relaxed);
        // Adding wraps around, so this may also subtract.
        part.waiters.fetch_add(change_in_waiters, Ordering::Relaxed);
        drop(queues);
        drop((ended, outdated));
        value
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder of this size fits")]
    fn part(&self, key: &Key) -> &Part<G> {
        &self.parts[(self.spread.hash_one(key) % PARTS as u64) as usize]
    }

    /// How many wait, for all keys.
    pub(crate) fn waiters(&self) -> usize {
        self.parts.iter().map(|part| part.waiters.load(Ordering::Relaxed)).sum()
    }

    /// How many keys are waited for or held.
    pub(crate) fn keys(&self) -> usize {
        self.parts.iter().map(|part| part.keys.load(Ordering::Relaxed)).sum()
    }
}

impl<G> Default for Queues<G> {
    fn default() -> Self {
        Self { parts: Default::default(), spread: RandomState::default() }
    }
}

impl<G> Default for Part<G> {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            waiters: AtomicUsize::default(),
            keys: AtomicUsize::default(),
        }
    }
}

impl<G> fmt::Debug for Queues<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues")
            .field("keys", &self.keys())
            .field("waiters", &self.waiters())
            .finish_non_exhaustive()
    }
}

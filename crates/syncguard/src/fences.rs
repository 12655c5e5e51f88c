//! The highest fence that this manager has seen of each key.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use syncguard_core::{Fence, Key, Lease, LockId};
use tokio::time::Instant;

/// How many keys a generation has. Two generations of keys are remembered, about 200 bytes each.
const GENERATION: usize = 4_096;

/// Remembers the highest fence of the keys that were granted most recently.
///
/// A store that loses its newest data grants fences that it has granted before: a replica that
/// lagged behind when it became the master, or a backup that was restored. The lease of an earlier
/// grant may still be live, so two holders can be at work. No client can prevent that, but this one
/// notices it.
#[derive(Debug, Default)]
pub(crate) struct HighestFences(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    recent: HashMap<Key, Seen, RandomState>,
    /// What was recent before.
    earlier: HashMap<Key, Seen, RandomState>,
}

/// The grant with the highest fence of a key.
#[derive(Clone, Debug)]
struct Seen {
    fence: Fence,
    id: LockId,
    at: Instant,
}

impl HighestFences {
    /// Remembers a grant whose request began at `begun` and was answered at `now`.
    ///
    /// # Errors
    ///
    /// The highest fence, if the grant should have had a higher one. A request that began before the
    /// highest fence was seen proves nothing: its answer may be late.
    pub(crate) fn check(&self, lease: &Lease, begun: Instant, now: Instant) -> Result<(), Fence> {
        self.check_in(lease, begun, now, GENERATION)
    }

    fn check_in(
        &self,
        lease: &Lease,
        begun: Instant,
        now: Instant,
        generation: usize,
    ) -> Result<(), Fence> {
        let grant = Seen { fence: lease.fence(), id: lease.id().clone(), at: now };
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(highest) = seen.recent.get_mut(lease.key()) {
            return highest.replace(grant, begun);
        }
        if let Some(mut highest) = seen.earlier.remove(lease.key()) {
            let replaced = highest.replace(grant, begun);
            seen.recent.insert(lease.key().clone(), highest);
            return replaced;
        }
        let outdated = (seen.recent.len() >= generation).then(|| {
            let recent = mem::take(&mut seen.recent);
            mem::replace(&mut seen.earlier, recent)
        });
        seen.recent.insert(lease.key().clone(), grant);
        drop(seen);
        drop(outdated);
        Ok(())
    }
}

impl Seen {
    /// Replaces this by a later grant, whose request began at `begun`.
    fn replace(&mut self, grant: Self, begun: Instant) -> Result<(), Fence> {
        // A repeat with the same id finds the same grant (A4).
        if grant.fence > self.fence || (grant.fence == self.fence && grant.id == self.id) {
            *self = grant;
            Ok(())
        } else if self.at <= begun {
            Err(self.fence)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use syncguard_core::Timestamp;
    use tokio::time::advance;

    use super::*;

    fn lease(key: &str, fence: u64) -> Lease {
        let (key, fence) = (Key::new(key).unwrap(), Fence::new(fence).unwrap());
        Lease::new(key, LockId::random().unwrap(), fence, Timestamp::from_millis(0))
    }

    fn check(fences: &HighestFences, lease: &Lease, begun: Instant) -> Result<(), Fence> {
        fences.check(lease, begun, Instant::now())
    }

    async fn later() -> Instant {
        advance(Duration::from_millis(1)).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn f6_a_fence_that_is_not_higher_is_noticed() {
        let fences = HighestFences::default();
        assert_eq!(check(&fences, &lease("a", 19), later().await), Ok(()));
        assert_eq!(check(&fences, &lease("b", 1), later().await), Ok(()));
        let highest = Fence::new(19).unwrap();
        assert_eq!(check(&fences, &lease("a", 9), later().await), Err(highest));
        assert_eq!(check(&fences, &lease("a", 19), later().await), Err(highest));
        assert_eq!(check(&fences, &lease("a", 20), later().await), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a4_a_repeat_may_find_the_same_grant() {
        let fences = HighestFences::default();
        let granted = lease("a", 7);
        assert_eq!(check(&fences, &granted, later().await), Ok(()));
        assert_eq!(check(&fences, &granted, later().await), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn f6_a_late_answer_proves_nothing() {
        let fences = HighestFences::default();
        let begun = later().await;
        let later = later().await;
        assert_eq!(check(&fences, &lease("a", 8), later), Ok(()));
        assert_eq!(check(&fences, &lease("a", 7), begun), Ok(()));
        // It has not replaced the higher one.
        assert!(check(&fences, &lease("a", 8), Instant::now()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn f6_the_memory_is_bounded_and_keeps_the_recent_keys() {
        let fences = HighestFences::default();
        let check =
            |key: &str, fence, begun| fences.check_in(&lease(key, fence), begun, Instant::now(), 4);
        for n in 0..100_u64 {
            assert_eq!(check(&format!("key {n}"), 5, later().await), Ok(()));
            assert_eq!(check("busy", 100 + n, later().await), Ok(()));
        }
        let remembered = {
            let seen = fences.0.lock().unwrap();
            seen.recent.len() + seen.earlier.len()
        };
        assert!(remembered <= 8, "{remembered}");
        assert!(check("busy", 7, later().await).is_err());
        assert!(check("key 99", 4, later().await).is_err());
        assert_eq!(check("key 0", 4, later().await), Ok(()), "expected it to be forgotten");
    }
}

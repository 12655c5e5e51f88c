//! The contract in code: what is stored, and how each operation changes it at one moment.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    Acquired, Fence, Key, Lease, LockId, LockRecord, Publication, Result, TOLERANCE, Timestamp,
    Ttl, is_live,
};
use tokio::sync::Notify;

/// All locks. Every method is one atomic step, because the caller holds the mutex.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// How much earlier than by the tolerance a lease ends: zero, or the whole tolerance.
    early: Duration,
    /// One slot per key that was ever locked: a fence counter is never deleted (R5).
    slots: HashMap<Key, Slot>,
    /// The keys of the leases that were not released, by lock id.
    keys: HashMap<LockId, Key>,
}

#[derive(Debug, Default)]
struct Slot {
    fence: u64,
    record: Option<LockRecord>,
    /// What the leader of the key published, and when that expires (N8).
    published: Option<(Publication, Timestamp)>,
    freed: Arc<Notify>,
}

impl Store {
    pub(crate) const fn end_at_ttl(&mut self) {
        self.early = TOLERANCE;
    }

    pub(crate) const fn ends_at_ttl(&self) -> bool {
        !self.early.is_zero()
    }

    /// Returns the time to compare with an expiry.
    fn deciding(&self, now: Timestamp) -> Timestamp {
        let early = u64::try_from(self.early.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_add(early))
    }

    pub(crate) fn acquire(
        &mut self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        now: Timestamp,
    ) -> Result<Acquired> {
        let deciding = self.deciding(now);
        let slot = self.slots.entry(key.clone()).or_default();
        let live = slot.record.as_ref().filter(|record| is_live(record.expires_at(), deciding));
        let (fence, acquired_at) = match live {
            // A4: a repeat of the same acquisition.
            Some(record) if record.id() == id => (record.fence(), record.acquired_at()),
            Some(record) => {
                // One of the two differences is zero.
                let left = record.expires_at().since(deciding) + TOLERANCE;
                let remaining = left.saturating_sub(deciding.since(record.expires_at()));
                return Ok(Acquired::Held { remaining: Some(remaining) });
            }
            // A6: the check comes before any write.
            None => (Fence::granted(slot.fence + 1)?, now),
        };
        Ok(Acquired::Granted(self.grant(key, id, fence, acquired_at, now.after(ttl))))
    }

    /// Ends one lease and grants the next, if the first is live.
    pub(crate) fn handoff(
        &mut self,
        from: &LockId,
        to: &LockId,
        ttl: Ttl,
        now: Timestamp,
    ) -> Result<Option<Lease>> {
        let Some(record) = self.find(from, now) else {
            return Ok(None);
        };
        let (key, fence) = (record.key().clone(), Fence::granted(record.fence().get() + 1)?);
        Ok(Some(self.grant(&key, to, fence, now, now.after(ttl))))
    }

    fn grant(
        &mut self,
        key: &Key,
        id: &LockId,
        fence: Fence,
        acquired_at: Timestamp,
        expires_at: Timestamp,
    ) -> Lease {
        let slot = self.slots.entry(key.clone()).or_default();
        slot.fence = slot.fence.max(fence.get());
        let record = LockRecord::new(key.clone(), id.clone(), fence, acquired_at, expires_at);
        if let Some(previous) = slot.record.replace(record)
            && self.keys.get(previous.id()) == Some(key)
        {
            self.keys.remove(previous.id());
        }
        self.keys.insert(id.clone(), key.clone());
        Lease::new(key.clone(), id.clone(), fence, expires_at)
    }

    pub(crate) fn extend(&mut self, id: &LockId, ttl: Ttl, now: Timestamp) -> Option<Lease> {
        let record = self.find(id, now)?;
        let (key, fence, expires_at) = (record.key(), record.fence(), now.after(ttl));
        let extended =
            LockRecord::new(key.clone(), id.clone(), fence, record.acquired_at(), expires_at);
        let lease = Lease::new(key.clone(), id.clone(), fence, expires_at);
        self.slots.get_mut(lease.key())?.record = Some(extended);
        Some(lease)
    }

    /// Returns the notification to send if a live lease ended. Send it after unlocking the mutex.
    pub(crate) fn release(&mut self, id: &LockId, now: Timestamp) -> Option<Arc<Notify>> {
        let key = self.find(id, now)?.key().clone();
        self.keys.remove(id);
        let slot = self.slots.get_mut(&key)?;
        slot.record = None;
        Some(slot.freed.clone())
    }

    pub(crate) fn get(&self, key: &Key, now: Timestamp) -> Option<&LockRecord> {
        let record = self.slots.get(key)?.record.as_ref()?;
        is_live(record.expires_at(), self.deciding(now)).then_some(record)
    }

    pub(crate) fn find(&self, id: &LockId, now: Timestamp) -> Option<&LockRecord> {
        self.get(self.keys.get(id)?, now).filter(|record| record.id() == id)
    }

    /// Stores a publication, unless one with a higher fence is stored (N6).
    pub(crate) fn publish(
        &mut self,
        key: &Key,
        publication: &Publication,
        ttl: Ttl,
        now: Timestamp,
    ) -> bool {
        let stored = self.published(key, now);
        let outranked = stored.is_some_and(|stored| stored.fence() > publication.fence());
        if !outranked {
            let slot = self.slots.entry(key.clone()).or_default();
            slot.published = Some((publication.clone(), now.after(ttl)));
        }
        !outranked
    }

    /// Removes the publication of a key, unless its fence is above `fence`.
    pub(crate) fn withdraw(&mut self, key: &Key, fence: Fence) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.published.take_if(|(stored, _)| stored.fence() <= fence);
        }
    }

    pub(crate) fn published(&self, key: &Key, now: Timestamp) -> Option<&Publication> {
        let (publication, expires_at) = self.slots.get(key)?.published.as_ref()?;
        is_live(*expires_at, self.deciding(now)).then_some(publication)
    }

    /// Resolves at the first release of this key after this call.
    pub(crate) fn freed(&mut self, key: &Key) -> impl Future<Output = ()> + Send + use<> {
        let freed = self.slots.entry(key.clone()).or_default().freed.clone();
        freed.notified_owned()
    }
}

//! The contract in code: what is stored, and what each operation does to it at one point in time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{
    Acquired, Fence, Key, Lease, LockId, LockRecord, Result, TOLERANCE, Timestamp, Ttl,
};
use tokio::sync::Notify;

/// All locks. Every method is one atomic step, since the caller holds the mutex around it.
#[derive(Debug)]
pub(crate) struct Store {
    /// How long a lease stays live after its expiry.
    tolerance: Duration,
    /// One per key that was ever locked: a fence counter is never deleted (R5).
    slots: HashMap<Key, Slot>,
    /// The keys of the leases that were not released, by id.
    keys: HashMap<LockId, Key>,
}

impl Default for Store {
    fn default() -> Self {
        Self { tolerance: TOLERANCE, slots: HashMap::new(), keys: HashMap::new() }
    }
}

#[derive(Debug, Default)]
struct Slot {
    fence: u64,
    record: Option<LockRecord>,
    freed: Arc<Notify>,
}

impl Store {
    pub(crate) const fn end_at_ttl(&mut self) {
        self.tolerance = Duration::ZERO;
    }

    pub(crate) const fn ends_at_ttl(&self) -> bool {
        self.tolerance.is_zero()
    }

    pub(crate) fn acquire(
        &mut self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        now: Timestamp,
    ) -> Result<Acquired> {
        let tolerance = self.tolerance;
        let slot = self.slots.entry(key.clone()).or_default();
        let live = slot.record.as_ref().filter(|record| is_live(record, tolerance, now));
        let (fence, acquired_at) = match live {
            // A4: the same acquisition again.
            Some(record) if record.id() == id => (record.fence(), record.acquired_at()),
            Some(record) => {
                // One of the two differences is zero.
                let (left, over) = (record.expires_at().since(now), now.since(record.expires_at()));
                let remaining = (left + tolerance).saturating_sub(over);
                return Ok(Acquired::Held { remaining: Some(remaining) });
            }
            // A6: checked before anything is written.
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

    /// Whom to tell if there was something to release, once the mutex is free.
    pub(crate) fn release(&mut self, id: &LockId, now: Timestamp) -> Option<Arc<Notify>> {
        let key = self.find(id, now)?.key().clone();
        self.keys.remove(id);
        let slot = self.slots.get_mut(&key)?;
        slot.record = None;
        Some(slot.freed.clone())
    }

    pub(crate) fn get(&self, key: &Key, now: Timestamp) -> Option<&LockRecord> {
        let record = self.slots.get(key)?.record.as_ref()?;
        is_live(record, self.tolerance, now).then_some(record)
    }

    pub(crate) fn find(&self, id: &LockId, now: Timestamp) -> Option<&LockRecord> {
        self.get(self.keys.get(id)?, now).filter(|record| record.id() == id)
    }

    /// Resolves at the first release of this key after the call.
    pub(crate) fn freed(&mut self, key: &Key) -> impl Future<Output = ()> + Send + use<> {
        let freed = self.slots.entry(key.clone()).or_default().freed.clone();
        freed.notified_owned()
    }
}

/// Whether a lease is live. With the whole tolerance this is [`syncguard_core::is_live`].
fn is_live(record: &LockRecord, tolerance: Duration, now: Timestamp) -> bool {
    now.since(record.expires_at()) < tolerance || record.expires_at() > now
}

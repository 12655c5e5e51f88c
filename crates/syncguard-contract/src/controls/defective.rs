//! A memory backend with one defect.

mod publishing;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use syncguard_core::{
    Acquired, Backend, Capabilities, Fence, Finding, Key, Lease, LockId, LockRecord, Publication,
    Result, Sent, Timestamp, Ttl,
};
use syncguard_memory::MemoryBackend;
use tokio::sync::Notify;

/// How a backend can violate the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    AcquireTakesAHeldKey,
    AcquireReadsThenWrites,
    FencesStartAgainAfterARelease,
    FencesRiseOnlyAtARelease,
    RepeatIsANewGrant,
    KeysAreCut,
    ReleaseIgnoresTheOwner,
    ReleaseWantsTheLatestLease,
    ReleaseIsTrueTwice,
    ExtendIgnoresTheOwner,
    ExtendRevives,
    ExtendAdds,
    ExtendRaisesTheFence,
    NoTolerance,
    LookupShowsTheDead,
    FindIgnoresTheOwner,
    LookupRenews,
    HandoffIgnoresTheOwner,
    HandoffRevives,
    HandoffKeepsTheFence,
    HandoffLeavesTheOldId,
    HandoffHasAGap,
    NotificationsNeverCome,
    RegistrationCountsFromTheFirstPoll,
    ReleaseByIdSendsNoNotification,
    PublishIgnoresTheFence,
    PublishReadsThenWrites,
    PublishRenews,
    PublicationsKeepTheirFirstExpiry,
    PublicationsShareARecord,
    WithdrawIgnoresTheFence,
    WithdrawRemovesNothing,
    AcquireNeverAnswers,
}

/// A memory backend with one defect.
#[derive(Debug)]
pub(crate) struct Defective {
    inner: MemoryBackend,
    defect: Defect,
    memory: Mutex<Memory>,
    /// Notified of releases that were not by id.
    released: Arc<Notify>,
}

/// What the defects must remember.
#[derive(Debug, Default)]
struct Memory {
    fences: HashMap<Key, u64>,
    keys: HashMap<LockId, Key>,
    seen: HashMap<Key, LockRecord>,
    /// The receiver of a handoff, by the old id.
    receivers: HashMap<LockId, LockId>,
}

impl Defective {
    pub(crate) fn new(defect: Defect) -> Self {
        let memory = Mutex::default();
        Self { inner: MemoryBackend::new(), defect, memory, released: Arc::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// The key that was once granted to this id.
    fn key_of(&self, id: &LockId) -> Option<Key> {
        self.memory().keys.get(id).cloned()
    }

    /// The id that holds the key now, for a key that was once granted to this id.
    async fn holder_instead_of(&self, id: &LockId) -> Result<LockId> {
        let Some(key) = self.key_of(id) else {
            return Ok(id.clone());
        };
        let holder = self.inner.get(&key).await?;
        Ok(holder.map_or_else(|| id.clone(), |record| record.id().clone()))
    }

    /// The receiver of this id's lease, or the id itself.
    fn same_as(&self, id: &LockId) -> LockId {
        self.memory().receivers.get(id).unwrap_or(id).clone()
    }

    async fn free(&self, key: &Key) -> Result<()> {
        if let Some(holder) = self.inner.get(key).await? {
            self.inner.release_by_id(holder.id()).await?;
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Defective {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let mut key = key.clone();
        match self.defect {
            Defect::AcquireTakesAHeldKey => self.free(&key).await?,
            Defect::AcquireNeverAnswers => pending().await,
            Defect::AcquireReadsThenWrites if self.inner.get(&key).await?.is_none() => {
                tokio::task::yield_now().await;
                self.free(&key).await?;
            }
            Defect::RepeatIsANewGrant => {
                self.inner.release_by_id(id).await?;
            }
            Defect::KeysAreCut => {
                let head: String = key.as_str().chars().take(100).collect();
                key = Key::new(&head)?;
            }
            _ => {}
        }
        let Acquired::Granted(lease) = self.inner.acquire(&key, id, ttl).await? else {
            return Ok(Acquired::Held { remaining: None });
        };
        let record = self.inner.get(&key).await?;
        let mut memory = self.memory();
        memory.keys.insert(id.clone(), key.clone());
        memory.seen.extend(record.map(|record| (key.clone(), record)));
        let count = memory.fences.entry(key).or_default();
        let fence = match self.defect {
            Defect::FencesStartAgainAfterARelease => {
                *count += 1;
                Fence::granted(*count)?
            }
            Defect::FencesRiseOnlyAtARelease => Fence::granted(*count + 1)?,
            _ => lease.fence(),
        };
        Ok(Acquired::Granted(with_fence(&lease, fence)))
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        sent.mark();
        self.acquire(key, id, ttl).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.extend_by_id(lease.id(), ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        if self.defect == Defect::ReleaseWantsTheLatestLease {
            let record = self.inner.find(lease.id()).await?;
            if record.is_some_and(|record| record.expires_at() != lease.expires_at()) {
                return Ok(false);
            }
        }
        let released = self.release_by_id(lease.id()).await?;
        self.released.notify_waiters();
        Ok(released)
    }

    async fn extend_by_id(&self, id: &LockId, mut ttl: Ttl) -> Result<Option<Lease>> {
        let mut id = self.same_as(id);
        match self.defect {
            Defect::ExtendIgnoresTheOwner => id = self.holder_instead_of(&id).await?,
            Defect::ExtendAdds => {
                if let Some(record) = self.inner.find(&id).await? {
                    let old = record.expires_at().since(record.acquired_at());
                    ttl = (ttl.as_duration() + old).try_into()?;
                }
            }
            _ => {}
        }
        let extended = self.inner.extend_by_id(&id, ttl).await?;
        match (self.defect, extended) {
            (Defect::ExtendRevives, None) => {
                let Some(key) = self.key_of(&id) else {
                    return Ok(None);
                };
                match self.inner.acquire(&key, &id, ttl).await? {
                    Acquired::Granted(lease) => Ok(Some(lease)),
                    Acquired::Held { .. } => Ok(None),
                }
            }
            (Defect::ExtendRaisesTheFence, Some(lease)) => {
                let fence = Fence::granted(lease.fence().get() + 1)?;
                Ok(Some(with_fence(&lease, fence)))
            }
            (_, extended) => Ok(extended),
        }
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let mut id = self.same_as(id);
        if self.defect == Defect::ReleaseIgnoresTheOwner {
            id = self.holder_instead_of(&id).await?;
        }
        let released = self.inner.release_by_id(&id).await?;
        let mut memory = self.memory();
        let Some(key) = memory.keys.get(&id).cloned() else {
            return Ok(released);
        };
        memory.seen.remove(&key);
        match self.defect {
            Defect::FencesStartAgainAfterARelease => drop(memory.fences.remove(&key)),
            Defect::FencesRiseOnlyAtARelease => *memory.fences.entry(key).or_default() += 1,
            _ => {}
        }
        Ok(released || self.defect == Defect::ReleaseIsTrueTwice)
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let record = self.inner.get(key).await?;
        match self.defect {
            Defect::NoTolerance => Ok(record.filter(|record| record.expires_at() > now())),
            Defect::LookupRenews => {
                if let Some(record) = &record {
                    let ttl = record.expires_at().since(record.acquired_at());
                    self.inner.extend_by_id(record.id(), ttl.try_into()?).await?;
                }
                self.inner.get(key).await
            }
            Defect::LookupShowsTheDead => {
                Ok(record.or_else(|| self.memory().seen.get(key).cloned()))
            }
            _ => Ok(record),
        }
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        match self.defect {
            Defect::FindIgnoresTheOwner => {
                let holder = self.holder_instead_of(id).await?;
                self.inner.find(&holder).await
            }
            _ => self.inner.find(id).await,
        }
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let mut lease = lease.clone();
        match self.defect {
            Defect::HandoffIgnoresTheOwner => {
                let holder = self.inner.get(lease.key()).await?;
                if let Some(holder) = holder {
                    let (key, fence) = (lease.key().clone(), lease.fence());
                    lease = Lease::new(key, holder.id().clone(), fence, holder.expires_at());
                }
            }
            Defect::HandoffRevives if self.inner.get(lease.key()).await?.is_none() => {
                let acquired = self.inner.acquire(lease.key(), id, ttl).await?;
                return Ok(granted(acquired));
            }
            Defect::HandoffHasAGap => {
                if !self.inner.release(&lease).await? {
                    return Ok(None);
                }
                tokio::task::yield_now().await;
                let acquired = self.inner.acquire(lease.key(), id, ttl).await?;
                return Ok(granted(acquired));
            }
            _ => {}
        }
        let new = self.inner.handoff(&lease, id, ttl).await?;
        match (self.defect, new) {
            (Defect::HandoffKeepsTheFence, Some(new)) => Ok(Some(with_fence(&new, lease.fence()))),
            (Defect::HandoffLeavesTheOldId, Some(new)) => {
                self.memory().receivers.insert(lease.id().clone(), id.clone());
                Ok(Some(new))
            }
            (_, new) => Ok(new),
        }
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let notification = self.inner.notified(key);
        let released = self.released.clone().notified_owned();
        let (defect, inner, key) = (self.defect, self.inner.clone(), key.clone());
        async move {
            match defect {
                Defect::NotificationsNeverCome => pending().await,
                Defect::RegistrationCountsFromTheFirstPoll => inner.notified(&key).await,
                Defect::ReleaseByIdSendsNoNotification => released.await,
                _ => notification.await,
            }
        }
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        self.publish_with_defect(lease, publication, ttl).await
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        self.withdraw_with_defect(lease).await
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        self.inner.published(&self.record_of(key)).await
    }

    async fn preflight(&self) -> Vec<Finding> {
        self.inner.preflight().await
    }
}

fn granted(acquired: Acquired) -> Option<Lease> {
    match acquired {
        Acquired::Granted(lease) => Some(lease),
        Acquired::Held { .. } => None,
    }
}

fn with_fence(lease: &Lease, fence: Fence) -> Lease {
    let (key, id) = (lease.key().clone(), lease.id().clone());
    Lease::new(key, id, fence, lease.expires_at())
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = now.unwrap().as_millis();
    Timestamp::from_millis(u64::try_from(millis).unwrap())
}

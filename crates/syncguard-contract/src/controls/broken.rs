//! A memory backend with one fault.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use syncguard_core::{
    Acquired, Backend, Capabilities, Fence, Key, Lease, LockId, LockRecord, Result, Timestamp, Ttl,
};
use syncguard_memory::MemoryBackend;
use tokio::sync::Notify;

/// How a backend can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
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
    LookShowsTheDead,
    FindIgnoresTheOwner,
    LookRenews,
    HandoffIgnoresTheOwner,
    HandoffRevives,
    HandoffKeepsTheFence,
    HandoffLeavesTheOldId,
    HandoffHasAGap,
    NotificationsNeverCome,
    InterestBeginsAtTheFirstPoll,
    ReleaseByIdTellsNobody,
    AcquireNeverAnswers,
}

/// A memory backend with one fault.
#[derive(Debug)]
pub(crate) struct Broken {
    inner: MemoryBackend,
    fault: Fault,
    memo: Mutex<Memo>,
    /// Told of releases that were not by id.
    released: Arc<Notify>,
}

/// What the faults need to remember.
#[derive(Debug, Default)]
struct Memo {
    fences: HashMap<Key, u64>,
    keys: HashMap<LockId, Key>,
    seen: HashMap<Key, LockRecord>,
    /// Whom the lease of an id was handed over to.
    heirs: HashMap<LockId, LockId>,
}

impl Broken {
    pub(crate) fn new(fault: Fault) -> Self {
        let memo = Mutex::default();
        Self { inner: MemoryBackend::new(), fault, memo, released: Arc::default() }
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap()
    }

    /// The key that was once granted to this id.
    fn key_of(&self, id: &LockId) -> Option<Key> {
        self.memo().keys.get(id).cloned()
    }

    /// The id that holds the key which was once granted to this one.
    async fn holder_instead_of(&self, id: &LockId) -> Result<LockId> {
        let Some(key) = self.key_of(id) else {
            return Ok(id.clone());
        };
        let holder = self.inner.get(&key).await?;
        Ok(holder.map_or_else(|| id.clone(), |record| record.id().clone()))
    }

    /// The id that this one passes for.
    fn same_as(&self, id: &LockId) -> LockId {
        self.memo().heirs.get(id).unwrap_or(id).clone()
    }

    async fn free(&self, key: &Key) -> Result<()> {
        if let Some(holder) = self.inner.get(key).await? {
            self.inner.release_by_id(holder.id()).await?;
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Broken {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let mut key = key.clone();
        match self.fault {
            Fault::AcquireTakesAHeldKey => self.free(&key).await?,
            Fault::AcquireNeverAnswers => pending().await,
            Fault::AcquireReadsThenWrites if self.inner.get(&key).await?.is_none() => {
                tokio::task::yield_now().await;
                self.free(&key).await?;
            }
            Fault::RepeatIsANewGrant => {
                self.inner.release_by_id(id).await?;
            }
            Fault::KeysAreCut => {
                let head: String = key.as_str().chars().take(100).collect();
                key = Key::new(&head)?;
            }
            _ => {}
        }
        let Acquired::Granted(lease) = self.inner.acquire(&key, id, ttl).await? else {
            return Ok(Acquired::Held { remaining: None });
        };
        let record = self.inner.get(&key).await?;
        let mut memo = self.memo();
        memo.keys.insert(id.clone(), key.clone());
        memo.seen.extend(record.map(|record| (key.clone(), record)));
        let count = memo.fences.entry(key).or_default();
        let fence = match self.fault {
            Fault::FencesStartAgainAfterARelease => {
                *count += 1;
                Fence::granted(*count)?
            }
            Fault::FencesRiseOnlyAtARelease => Fence::granted(*count + 1)?,
            _ => lease.fence(),
        };
        Ok(Acquired::Granted(with_fence(&lease, fence)))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.extend_by_id(lease.id(), ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        if self.fault == Fault::ReleaseWantsTheLatestLease {
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
        match self.fault {
            Fault::ExtendIgnoresTheOwner => id = self.holder_instead_of(&id).await?,
            Fault::ExtendAdds => {
                if let Some(record) = self.inner.find(&id).await? {
                    let old = record.expires_at().since(record.acquired_at());
                    ttl = (ttl.as_duration() + old).try_into()?;
                }
            }
            _ => {}
        }
        let extended = self.inner.extend_by_id(&id, ttl).await?;
        match (self.fault, extended) {
            (Fault::ExtendRevives, None) => {
                let Some(key) = self.key_of(&id) else {
                    return Ok(None);
                };
                match self.inner.acquire(&key, &id, ttl).await? {
                    Acquired::Granted(lease) => Ok(Some(lease)),
                    Acquired::Held { .. } => Ok(None),
                }
            }
            (Fault::ExtendRaisesTheFence, Some(lease)) => {
                let fence = Fence::granted(lease.fence().get() + 1)?;
                Ok(Some(with_fence(&lease, fence)))
            }
            (_, extended) => Ok(extended),
        }
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let mut id = self.same_as(id);
        if self.fault == Fault::ReleaseIgnoresTheOwner {
            id = self.holder_instead_of(&id).await?;
        }
        let released = self.inner.release_by_id(&id).await?;
        let mut memo = self.memo();
        let Some(key) = memo.keys.get(&id).cloned() else {
            return Ok(released);
        };
        memo.seen.remove(&key);
        match self.fault {
            Fault::FencesStartAgainAfterARelease => drop(memo.fences.remove(&key)),
            Fault::FencesRiseOnlyAtARelease => *memo.fences.entry(key).or_default() += 1,
            _ => {}
        }
        Ok(released || self.fault == Fault::ReleaseIsTrueTwice)
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let record = self.inner.get(key).await?;
        match self.fault {
            Fault::NoTolerance => Ok(record.filter(|record| record.expires_at() > now())),
            Fault::LookRenews => {
                if let Some(record) = &record {
                    let ttl = record.expires_at().since(record.acquired_at());
                    self.inner.extend_by_id(record.id(), ttl.try_into()?).await?;
                }
                self.inner.get(key).await
            }
            Fault::LookShowsTheDead => Ok(record.or_else(|| self.memo().seen.get(key).cloned())),
            _ => Ok(record),
        }
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        match self.fault {
            Fault::FindIgnoresTheOwner => {
                let holder = self.holder_instead_of(id).await?;
                self.inner.find(&holder).await
            }
            _ => self.inner.find(id).await,
        }
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let mut lease = lease.clone();
        match self.fault {
            Fault::HandoffIgnoresTheOwner => {
                let holder = self.inner.get(lease.key()).await?;
                if let Some(holder) = holder {
                    let (key, fence) = (lease.key().clone(), lease.fence());
                    lease = Lease::new(key, holder.id().clone(), fence, holder.expires_at());
                }
            }
            Fault::HandoffRevives if self.inner.get(lease.key()).await?.is_none() => {
                let acquired = self.inner.acquire(lease.key(), id, ttl).await?;
                return Ok(granted(acquired));
            }
            Fault::HandoffHasAGap => {
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
        match (self.fault, new) {
            (Fault::HandoffKeepsTheFence, Some(new)) => Ok(Some(with_fence(&new, lease.fence()))),
            (Fault::HandoffLeavesTheOldId, Some(new)) => {
                self.memo().heirs.insert(lease.id().clone(), id.clone());
                Ok(Some(new))
            }
            (_, new) => Ok(new),
        }
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let notification = self.inner.notified(key);
        let released = self.released.clone().notified_owned();
        let (fault, inner, key) = (self.fault, self.inner.clone(), key.clone());
        async move {
            match fault {
                Fault::NotificationsNeverCome => pending().await,
                Fault::InterestBeginsAtTheFirstPoll => inner.notified(&key).await,
                Fault::ReleaseByIdTellsNobody => released.await,
                _ => notification.await,
            }
        }
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

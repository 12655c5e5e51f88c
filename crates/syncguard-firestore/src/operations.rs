//! The operations: what each reads, decides, and commits on condition that nothing has changed since.

mod publishing;
mod requests;

use std::time::Duration;

use gcloud_sdk::google::firestore::v1::Document;
use syncguard_core::{
    Acquired, ErrorCode, Fence, Key, Lease, LockId, LockRecord, Result, TOLERANCE, Timestamp, Ttl,
};

use crate::error::failure;
use crate::record::{
    StoredLock, delete, last_fence, lease_of, put_expiry, put_fence, put_lock, revision_from_text,
    stored_fence,
};

pub(crate) use requests::{Commit, Index, Session, Store};

/// How often a change is tried that others get in the way of: enough for ten who repeat the same
/// acquisition at once, each of whom has to get through.
const ATTEMPTS: u32 = 10;

/// The longest pause before the second attempt. It doubles from one attempt to the next, three times
/// at most, so the nine pauses together take 550 ms at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// How the holder of a lease is known.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    Lease(&'a Lease),
    Id(&'a LockId),
}

#[derive(Clone, Copy)]
pub(crate) enum Change {
    Extend(Ttl),
    Release,
}

impl Session<'_> {
    /// Reads both documents, and writes them on condition that neither has changed since. A client
    /// that commits in between changes the lock document. So of all clients that read the same
    /// documents at most one can commit (A1), and no fence is granted twice (A3).
    pub(crate) async fn try_acquire(self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let names = self.names.of(key);
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let ([lock, counter], _) = self.read([&names.lock, &names.fence]).await?;
            let now = self.clock.now();
            if let Some(live) = read_live(lock.as_ref(), now)? {
                match self.acquire_live(&live, now, id, ttl).await? {
                    Some(acquired) => return Ok(acquired),
                    None => continue,
                }
            }

            // A counter that was lost or set back must not take fences back that were granted (A3).
            let counted = counter.as_ref().map_or(Ok(0), last_fence)?;
            let dead = lock.as_ref().and_then(stored_fence);
            let last = dead.map_or(counted, |fence| counted.max(fence.get()));
            // A6: checked before anything is written.
            let fence = Fence::granted(last.saturating_add(1))?;
            let record = LockRecord::new(key.clone(), id.clone(), fence, now, now.after(ttl));
            let writes = vec![
                put_lock(names.lock.clone(), &record, lock.and_then(|lock| lock.update_time)),
                put_fence(
                    names.fence.clone(),
                    fence,
                    key,
                    counter.and_then(|counter| counter.update_time),
                ),
            ];
            if let Commit::Applied(revision) = self.commit(writes, true).await? {
                if fence > Fence::WARN_ABOVE {
                    tracing::warn!(key = %key.fingerprint(), %fence, "the fences of a key run out");
                }
                return Ok(Acquired::Granted(lease_of(&record, revision)));
            }
        }
        // Others took turns with this key all the time. Look who has it: if a commit was applied
        // and still refused, it is ours, and must not be called held.
        let acquired = match self.by_key(key).await? {
            Some((live, now)) => self.acquire_live(&live, now, id, ttl).await?,
            None => None,
        };
        Ok(acquired.unwrap_or(Acquired::Held { remaining: None }))
    }

    /// Acquires a key that is locked: by another, or by the same acquisition, which then goes on
    /// (A4). `None` when that one has just ended.
    async fn acquire_live(
        self,
        live: &StoredLock,
        now: Timestamp,
        id: &LockId,
        ttl: Ttl,
    ) -> Result<Option<Acquired>> {
        if live.id() != id {
            let remaining = Some(until_dead(&live.record, now));
            return Ok(Some(Acquired::Held { remaining }));
        }
        let own = live.lease();
        let renewed = self.change(Holder::Lease(&own), Change::Extend(ttl)).await?;
        Ok(renewed.map(Acquired::Granted))
    }

    /// Makes a change to the live lease of this holder; `None` when there is no such lease.
    pub(crate) async fn change(self, holder: Holder<'_>, change: Change) -> Result<Option<Lease>> {
        // While the document has the lease's revision it holds what the lease says, so there is
        // nothing to read. A lease that looks dead may have been extended by its id: look.
        if let Holder::Lease(lease) = holder
            && let Some(lock) = self.remembered(lease)
        {
            let now = self.clock.now();
            if lock.is_live(now)
                && let Some(lease) = self.apply(&lock, change, now).await?
            {
                return Ok(Some(lease));
            }
        }
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let (found, id) = match holder {
                Holder::Lease(lease) => (self.by_key(lease.key()).await?, lease.id()),
                Holder::Id(id) => (self.by_id(id).await?, id),
            };
            let Some((lock, now)) = found.filter(|(lock, _)| lock.id() == id) else {
                return Ok(None);
            };
            if let Some(lease) = self.apply(&lock, change, now).await? {
                return Ok(Some(lease));
            }
        }
        Err(failure(ErrorCode::ServiceUnavailable)
            .with_message("others changed the lock each time it was read"))
    }

    /// Commits a change to a lock that is live at `now`. `None` if the lock must be read again.
    async fn apply(
        self,
        lock: &StoredLock,
        change: Change,
        now: Timestamp,
    ) -> Result<Option<Lease>> {
        let name = lock.name.clone();
        let (expires_at, write) = match change {
            Change::Extend(ttl) => {
                let expires_at = now.after(ttl);
                (expires_at, put_expiry(name, expires_at, lock.revision))
            }
            Change::Release => (lock.record.expires_at(), delete(name, lock.revision)),
        };
        // A release that was applied without an answer cannot be told from one by another caller.
        let repeatable = matches!(change, Change::Extend(_));
        Ok(match self.commit(vec![write], repeatable).await? {
            Commit::Applied(revision) => {
                Some(lease_of(&lock.record, revision).with_expires_at(expires_at))
            }
            Commit::Refused | Commit::Unanswered => None,
        })
    }

    /// The lock document as it is if the lease is the last word on it.
    fn remembered(self, lease: &Lease) -> Option<StoredLock> {
        let revision = revision_from_text(lease.revision()?)?;
        Some(StoredLock {
            name: self.names.of(lease.key()).lock,
            record: LockRecord::new(
                lease.key().clone(),
                lease.id().clone(),
                lease.fence(),
                // When it was acquired is neither known here nor asked for.
                lease.expires_at(),
                lease.expires_at(),
            ),
            revision,
        })
    }

    /// The live lock of a key, and when it was found live.
    pub(crate) async fn by_key(self, key: &Key) -> Result<Option<(StoredLock, Timestamp)>> {
        let names = self.names.of(key);
        let ([lock], _) = self.read([&names.lock]).await?;
        let now = self.clock.now();
        Ok(read_live(lock.as_ref(), now)?.map(|lock| (lock, now)))
    }

    /// The one live lock with this id, and when it was found live.
    pub(crate) async fn by_id(self, id: &LockId) -> Result<Option<(StoredLock, Timestamp)>> {
        let documents = self.find(id).await?;
        if documents.len() > 1 {
            let (id, count) = (id.fingerprint(), documents.len());
            tracing::warn!(%id, count, "more than one lock document has the same lock id");
        }
        let now = self.clock.now();
        let mut live = Vec::new();
        for document in &documents {
            live.extend(StoredLock::read_live(document, now)?.filter(|lock| lock.id() == id));
        }
        // Which of two is meant nobody can know.
        let only = live.pop().filter(|_| live.is_empty());
        Ok(only.map(|lock| (lock, now)))
    }
}

fn read_live(document: Option<&Document>, now: Timestamp) -> Result<Option<StoredLock>> {
    document.map_or(Ok(None), |document| StoredLock::read_live(document, now))
}

/// How long until the lock counts as dead.
fn until_dead(record: &LockRecord, now: Timestamp) -> Duration {
    let since_epoch = |time: Timestamp| Duration::from_millis(time.as_millis());
    (since_epoch(record.expires_at()) + TOLERANCE).saturating_sub(since_epoch(now))
}

/// Gives those who are in each other's way a different pause each.
async fn pause_before(attempt: u32) {
    if let Some(doublings) = attempt.checked_sub(1) {
        let at_most = FIRST_PAUSE * (1 << doublings.min(3));
        tokio::time::sleep(at_most.mul_f64(fastrand::f64())).await;
    }
}

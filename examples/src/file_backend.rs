//! A backend of your own: locks in one file, for the processes of one machine.
//!
//! It has the three parts that every backend has:
//!
//! - One atomic step per operation. Here, a step reads and writes the file while it holds the
//!   operating system's file lock.
//! - One clock that decides. Here, it is the machine's clock.
//! - One predicate for a live lease, [`is_live`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Result as IoResult};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Error, ErrorCode, Fence, Key, Lease, LockId,
    LockRecord, Operation, Result, Timestamp, Ttl, is_live,
};

/// Stores locks in a file on this machine.
#[derive(Clone, Debug)]
pub struct FileBackend {
    path: PathBuf,
}

/// The content of the file.
#[derive(Default, Serialize, Deserialize)]
struct Locks {
    /// Live leases only: each step first removes the dead ones.
    records: BTreeMap<Key, LockRecord>,
    /// The highest fence of each key. Never deleted.
    fences: BTreeMap<Key, u64>,
}

impl FileBackend {
    /// Uses the file at `path`. The first operation creates it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Runs one atomic step: no other process sees the file between the read and the write.
    async fn step<T: Send + 'static>(
        &self,
        operation: Operation,
        step: impl FnOnce(&mut Locks, Timestamp) -> T + Send + 'static,
    ) -> Result<T> {
        let path = self.path.clone();
        // A blocking task runs to its end, even if the future that awaits it is dropped. So no step
        // stops halfway.
        let done = tokio::task::spawn_blocking(move || -> IoResult<T> {
            let guard = File::create(path.with_extension("lock"))?;
            guard.lock()?;
            let mut locks = match fs::read(&path) {
                Ok(content) => serde_json::from_slice(&content)?,
                Err(error) if error.kind() == ErrorKind::NotFound => Locks::default(),
                Err(error) => return Err(error),
            };
            let now = now();
            locks.records.retain(|_, record| is_live(record.expires_at(), now));
            let answer = step(&mut locks, now);
            // A rename is atomic, so a crash leaves either the old file or the new one.
            let new = path.with_extension("new");
            fs::write(&new, serde_json::to_vec(&locks)?)?;
            fs::rename(new, path)?;
            Ok(answer)
        });
        let failed = |code| move |source| Error::new(code, operation).with_source(source);
        match done.await {
            Ok(answer) => answer.map_err(|source| match source.kind() {
                ErrorKind::InvalidData => failed(ErrorCode::Internal)(source),
                ErrorKind::PermissionDenied => failed(ErrorCode::AuthFailed)(source),
                _ => failed(ErrorCode::ServiceUnavailable)(source),
            }),
            Err(panicked) => Err(Error::new(ErrorCode::Internal, operation).with_source(panicked)),
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Locks {
    fn find(&self, id: &LockId) -> Option<&LockRecord> {
        self.records.values().find(|record| record.id() == id)
    }

    fn acquire(&mut self, key: Key, id: LockId, ttl: Ttl, now: Timestamp) -> Result<Acquired> {
        let (fence, since) = match self.records.get(&key) {
            Some(mine) if mine.id() == &id => (mine.fence(), mine.acquired_at()),
            Some(_) => return Ok(Acquired::Held { remaining: None }),
            None => (Fence::granted(self.fences.get(&key).unwrap_or(&0) + 1)?, now),
        };
        self.fences.insert(key.clone(), fence.get());
        let record = LockRecord::new(key, id, fence, since, now.after(ttl));
        Ok(Acquired::Granted(self.store(record)))
    }

    fn extend(&mut self, id: &LockId, ttl: Ttl, now: Timestamp) -> Option<Lease> {
        let old = self.find(id)?;
        let (key, since) = (old.key().clone(), old.acquired_at());
        let new = LockRecord::new(key, id.clone(), old.fence(), since, now.after(ttl));
        Some(self.store(new))
    }

    fn release(&mut self, id: &LockId) -> bool {
        let key = self.find(id).map(|record| record.key().clone());
        key.is_some_and(|key| self.records.remove(&key).is_some())
    }

    fn store(&mut self, record: LockRecord) -> Lease {
        let (key, id) = (record.key().clone(), record.id().clone());
        let lease = Lease::new(key.clone(), id, record.fence(), record.expires_at());
        self.records.insert(key, record);
        lease
    }
}

impl Backend for FileBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Clock::Server)
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let (key, id) = (key.clone(), id.clone());
        self.step(Operation::Acquire, move |locks, now| locks.acquire(key, id, ttl, now)).await?
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        self.extend_by_id(lease.id(), ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        self.release_by_id(lease.id()).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let id = id.clone();
        self.step(Operation::Extend, move |locks, now| locks.extend(&id, ttl, now)).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let id = id.clone();
        self.step(Operation::Release, move |locks, _| locks.release(&id)).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let key = key.clone();
        self.step(Operation::Get, move |locks, _| locks.records.get(&key).cloned()).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let id = id.clone();
        self.step(Operation::Find, move |locks, _| locks.find(&id).cloned()).await
    }
}

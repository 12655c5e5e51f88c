//! The backend, and how it implements the trait.

use std::fmt;
use std::sync::Arc;

use syncguard_backend::Notified;
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Error, ErrorCode, Finding, Key, Lease, LockId,
    LockRecord, Operation, Publication, Result, Sent, Ttl,
};

use crate::clock::ClockOffset;
use crate::error::Failure;
use crate::notifications::Listener;
use crate::operations::{Change, Holder, Store};
use crate::preflight::preflight;

/// Locks in Firestore. Clones share the connection and the stream that notifications come from.
///
/// See the [crate](crate) for what it needs from the database and from the clocks.
#[derive(Clone)]
pub struct FirestoreBackend {
    store: Arc<Store>,
    /// Where notifications are turned on.
    pub(crate) listener: Option<Arc<Listener>>,
}

impl FirestoreBackend {
    pub(crate) fn from_store(store: Store, notifications: bool) -> Self {
        let store = Arc::new(store);
        let listener = notifications.then(|| Arc::new(Listener::new(store.clone())));
        Self { store, listener }
    }

    /// Asks Firestore for the time, with one read, and tells how far this machine's clock is off.
    ///
    /// Every other reply is compared as well, and a warning goes to `tracing` when the clock is
    /// certainly off by more than [`ClockOffset::WARN_ABOVE`]. Call this at start-up, or for a
    /// gauge that is watched.
    ///
    /// # Errors
    ///
    /// As Firestore fails.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub async fn clock_offset(&self) -> Result<ClockOffset> {
        self.run(Operation::Get, async {
            // Any document will do; it need not exist.
            let name = self.store.names.probe("clock");
            let ([_], offset) = self.store.begin().read([&name]).await?;
            Ok(offset.ok_or(Failure::Incomplete)?)
        })
        .await
    }

    /// Runs an operation within the command timeout, and names it in its error.
    async fn run<T>(
        &self,
        operation: Operation,
        body: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match tokio::time::timeout(self.store.command_timeout, body).await {
            Ok(result) => result.map_err(|error| error.with_operation(operation)),
            Err(elapsed) => Err(Error::new(ErrorCode::NetworkTimeout, operation)
                .with_message(format!(
                    "no answer from Firestore within {:?}: check the network, or raise \
                     command_timeout",
                    self.store.command_timeout
                ))
                .with_source(elapsed)),
        }
    }
}

impl fmt::Debug for FirestoreBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirestoreBackend")
            .field("names", &self.store.names)
            .field("command_timeout", &self.store.command_timeout)
            .field("notifications", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

// `handoff` keeps its default body: it is for stores that pass a lease on in one trip, and here
// the fence counter must be read before the next fence can be written.
impl Backend for FirestoreBackend {
    fn capabilities(&self) -> Capabilities {
        let plain = Capabilities::new(Clock::Client).with_publishing();
        if self.listener.is_some() { plain.with_notifications() } else { plain }
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.acquire_marking(key, id, ttl, &Sent::default()).await
    }

    /// Marks before the commit, which is the first request that can grant the key.
    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        self.run(Operation::Acquire, self.store.begin_marking(sent).try_acquire(key, id, ttl))
            .await
            .map_err(|error| error.with_key(key))
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let change = self.store.begin().change(Holder::Lease(lease), Change::Extend(ttl));
        self.run(Operation::Extend, change).await.map_err(|error| error.with_key(lease.key()))
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let change = self.store.begin().change(Holder::Lease(lease), Change::Release);
        self.run(Operation::Release, change)
            .await
            .map(|released| released.is_some())
            .map_err(|error| error.with_key(lease.key()))
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let change = self.store.begin().change(Holder::Id(id), Change::Extend(ttl));
        self.run(Operation::Extend, change).await.map_err(|error| error.with_id(id))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let change = self.store.begin().change(Holder::Id(id), Change::Release);
        self.run(Operation::Release, change)
            .await
            .map(|released| released.is_some())
            .map_err(|error| error.with_id(id))
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let found = self.run(Operation::Get, self.store.begin().by_key(key)).await;
        found.map(|found| found.map(|(lock, _)| lock.record)).map_err(|error| error.with_key(key))
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let found = self.run(Operation::Find, self.store.begin().by_id(id)).await;
        found.map(|found| found.map(|(lock, _)| lock.record)).map_err(|error| error.with_id(id))
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        let publish = self.store.begin().publish(lease.key(), publication, ttl);
        self.run(Operation::Publish, publish).await.map_err(|error| error.with_key(lease.key()))
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let withdraw = self.store.begin().withdraw(lease);
        self.run(Operation::Withdraw, withdraw).await.map_err(|error| error.with_key(lease.key()))
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let published = self.store.begin().published(key);
        self.run(Operation::Published, published).await.map_err(|error| error.with_key(key))
    }

    async fn preflight(&self) -> Vec<Finding> {
        preflight(&self.store).await
    }

    /// Pending, unless [notifications](crate::FirestoreBackendBuilder::notifications) are on.
    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        self.listener.as_ref().map_or_else(Notified::never, |listener| {
            listener.notification(&self.store.names.of(key).lock)
        })
    }
}

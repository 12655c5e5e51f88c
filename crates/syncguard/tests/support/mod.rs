//! A memory backend whose answers can be spoilt, and which notes when it was asked.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test files, each of which uses a part; a test may panic"
)]

pub mod line;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Error, ErrorCode, Key, Lease, LockId, LockRecord,
    Operation, Result, Ttl,
};
use syncguard_memory::MemoryBackend;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// What happens to an operation.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is carried out and answered.
    None,
    /// It is not carried out and fails.
    Refused(ErrorCode),
    /// It is carried out, and its reply is lost.
    ReplyLost,
    /// It is carried out after this time.
    Late(Duration),
    /// It is carried out, and answered after this time.
    ReplyLate(Duration),
    /// It is not carried out and never answered.
    Hangs,
    /// It fails at once, and is carried out after this time.
    LandsLate(Duration),
    /// The backend has a bug.
    Panics,
}

#[derive(Clone, Debug)]
pub struct Spoilt {
    pub store: MemoryBackend,
    capabilities: Capabilities,
    faults: Arc<Mutex<VecDeque<(Operation, Fault)>>>,
    calls: Arc<Mutex<Vec<(Operation, Instant)>>>,
    notifications: Arc<Mutex<Notifications>>,
    /// In notifications, each alive until it ends.
    interests: Arc<Mutex<Vec<Weak<()>>>>,
    /// How much longer an acquire takes on its way.
    distance: Duration,
}

/// What happens to an interest in notifications that is taken.
#[derive(Clone, Copy, Debug, Default)]
pub enum Notifications {
    /// It hears of the next release.
    #[default]
    Told,
    /// It hears of nothing.
    Lost,
    /// It hears of something at once, for no reason.
    Hasty,
    /// The backend has a bug.
    Panic,
}

impl Spoilt {
    /// Without notifications and without handoff.
    pub fn new() -> Self {
        // So that the tests see the timers.
        Self::with(Capabilities::new(Clock::Server))
    }

    pub fn with_handoff() -> Self {
        Self::with(Capabilities::new(Clock::Server).with_handoff())
    }

    pub fn with_notifications_and_handoff() -> Self {
        Self::with(Capabilities::new(Clock::Server).with_notifications().with_handoff())
    }

    fn with(capabilities: Capabilities) -> Self {
        let store = MemoryBackend::new();
        Self {
            store,
            capabilities,
            faults: Arc::default(),
            calls: Arc::default(),
            notifications: Arc::default(),
            interests: Arc::default(),
            distance: Duration::ZERO,
        }
    }

    /// The same store on a way that takes so much longer.
    pub fn farther_by(&self, distance: Duration) -> Self {
        Self { distance, ..self.clone() }
    }

    /// What happens to the interests that are taken from now on.
    pub fn notifications(&self, notifications: Notifications) {
        *self.notifications.lock().unwrap() = notifications;
    }

    /// How many interests were taken.
    pub fn notifications_asked_for(&self) -> usize {
        self.interests.lock().unwrap().len()
    }

    /// How many take an interest in notifications at this moment.
    pub fn interests(&self) -> usize {
        let interests = self.interests.lock().unwrap();
        interests.iter().filter(|interest| interest.strong_count() > 0).count()
    }

    /// What happens to the next calls of this operation, one after the other.
    pub fn next(&self, operation: Operation, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().map(|fault| (operation, fault));
        self.faults.lock().unwrap().extend(faults);
    }

    /// When this operation was called.
    pub fn calls(&self, operation: Operation) -> Vec<Instant> {
        let calls = self.calls.lock().unwrap();
        let of = calls.iter().filter(|call| call.0 == operation);
        of.map(|call| call.1).collect()
    }

    async fn pass<T: Send + 'static, F>(&self, op: Operation, call: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.calls.lock().unwrap().push((op, Instant::now()));
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            let next = faults.iter().position(|fault| fault.0 == op);
            next.and_then(|next| faults.remove(next))
        };
        match fault.map_or(Fault::None, |fault| fault.1) {
            Fault::None => call.await,
            Fault::Refused(code) => Err(Error::new(code, op)),
            Fault::ReplyLost => {
                call.await?;
                Err(Error::new(ErrorCode::NetworkTimeout, op))
            }
            Fault::Late(by) => {
                sleep(by).await;
                call.await
            }
            Fault::ReplyLate(by) => {
                let reply = call.await;
                sleep(by).await;
                reply
            }
            Fault::Hangs => pending().await,
            Fault::LandsLate(by) => {
                drop(Handle::current().spawn(async move {
                    sleep(by).await;
                    call.await
                }));
                Err(Error::new(ErrorCode::NetworkTimeout, op))
            }
            Fault::Panics => panic!("a backend with a bug"),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Spoilt {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        let (store, key, id) = (self.store.clone(), key.clone(), id.clone());
        if !self.distance.is_zero() {
            sleep(self.distance).await;
        }
        self.pass(Operation::Acquire, async move { store.acquire(&key, &id, ttl).await }).await
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let (store, lease) = (self.store.clone(), lease.clone());
        self.pass(Operation::Extend, async move { store.extend(&lease, ttl).await }).await
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let (store, lease) = (self.store.clone(), lease.clone());
        self.pass(Operation::Release, async move { store.release(&lease).await }).await
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (store, id) = (self.store.clone(), id.clone());
        self.pass(Operation::Extend, async move { store.extend_by_id(&id, ttl).await }).await
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let (store, id) = (self.store.clone(), id.clone());
        self.pass(Operation::Release, async move { store.release_by_id(&id).await }).await
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let (store, key) = (self.store.clone(), key.clone());
        self.pass(Operation::Get, async move { store.get(&key).await }).await
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let (store, id) = (self.store.clone(), id.clone());
        self.pass(Operation::Find, async move { store.find(&id).await }).await
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (store, lease, id) = (self.store.clone(), lease.clone(), id.clone());
        let call = async move { store.handoff(&lease, &id, ttl).await };
        self.pass(Operation::Handoff, call).await
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        let interest = Arc::new(());
        self.interests.lock().unwrap().push(Arc::downgrade(&interest));
        let notifications = *self.notifications.lock().unwrap();
        let hears = self.capabilities.receives_notifications();
        let notification = hears.then(|| self.store.notified(key));
        async move {
            let _interest = interest;
            match (notification, notifications) {
                (Some(notification), Notifications::Told) => notification.await,
                (Some(_), Notifications::Hasty) => {}
                (Some(_), Notifications::Panic) => {
                    // Not before it was left to wait.
                    sleep(Duration::from_millis(10)).await;
                    panic!("a backend with a bug");
                }
                (None, _) | (Some(_), Notifications::Lost) => pending().await,
            }
        }
    }
}

/// Milliseconds between two moments.
pub fn millis(from: Instant, to: Instant) -> u128 {
    to.duration_since(from).as_millis()
}

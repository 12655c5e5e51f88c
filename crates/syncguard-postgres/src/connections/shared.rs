//! What the connections of one backend have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sqlx::pool::CloseEvent;
use sqlx::postgres::{PgConnection, PgPool};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::state::{Open, State};

/// How many more connections renewals and releases may use than attempts and lookups.
const RESERVE: usize = 2;

/// Far more connections than a server accepts, and fewer than a semaphore can count.
const MOST: usize = 100_000;

/// How long opening a connection may take. While the network is silent, one more is tried each second,
/// so this also limits how many are being opened.
const LONGEST_OPENING: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Shared {
    /// Says how to connect. It lends no connection.
    pub(super) pool: PgPool,
    /// How long opening one, or its answer to a test, may take.
    pub(super) limit: Duration,
    pub(super) permits: Arc<Semaphore>,
    pub(super) reserve: Arc<Semaphore>,
    /// All permits.
    pub(super) max: usize,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(pool: PgPool, max: u32, limit: Duration) -> Self {
        let max = usize::try_from(max).unwrap_or(MOST).clamp(1, MOST);
        Self {
            pool,
            limit: limit.min(LONGEST_OPENING),
            permits: Arc::new(Semaphore::new(max)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            max: max + RESERVE,
            state: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while the mutex is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection that was opened in this runtime.
    pub(super) fn adopt(self: &Arc<Self>, connection: PgConnection) {
        let open = {
            let state = self.state();
            state.open(connection, Handle::current().id(), state.generation)
        };
        self.give_back(open);
    }

    /// Leaves a connection to others.
    pub(super) fn give_back(self: &Arc<Self>, open: Open) {
        if !self.pool.is_closed() {
            let mut state = self.state();
            state.deliver(open, self.max);
            self.ensure_swept(&mut state);
        }
    }

    /// Starts the task that closes idle connections, unless one runs.
    fn ensure_swept(self: &Arc<Self>, state: &mut State) {
        // A sweeper also ends with its runtime, if there is more than one.
        if state.sweeper.as_ref().is_none_or(AbortHandle::is_finished)
            && let Ok(runtime) = Handle::try_current()
        {
            let sweep = sweep(Arc::downgrade(self), self.pool.close_event());
            state.sweeper = Some(runtime.spawn(sweep).abort_handle());
        }
    }
}

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// Closes connections that have been idle for long, and all of them with the pool.
async fn sweep(shared: Weak<Shared>, mut closed: CloseEvent) {
    loop {
        let closed = timeout(IDLE / 4, &mut closed).await.is_ok();
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state();
        if closed || !state.keep_idle_for(IDLE) {
            state.clear();
            state.sweeper = None;
            return;
        }
    }
}

//! Connections of the pool, kept at hand for a moment between two operations.
//!
//! The driver's pool asks the server whether a connection is alive each time it is given back. For a
//! backend with much to do that is as much work as its statements. So a connection that has just
//! served waits here for the next operation, for some milliseconds, and only while the pool has more
//! to lend, so that nobody else waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How often the pool gets back what is not in use.
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// A pool, and the connections of it that are at hand.
pub(crate) struct Connections {
    pool: PgPool,
    at_hand: Arc<Mutex<AtHand>>,
}

#[derive(Default)]
struct AtHand {
    connections: Vec<PoolConnection<Postgres>>,
    /// The task that empties this, and the runtime that it runs on.
    sweeper: Option<(AbortHandle, Handle)>,
}

impl Connections {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, at_hand: Arc::default() }
    }

    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection that is at hand, or one of the pool.
    pub(crate) async fn take(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let at_hand = lock(&self.at_hand).connections.pop();
        match at_hand {
            Some(connection) if !self.pool.is_closed() => Ok(connection),
            _ => self.pool.acquire().await,
        }
    }

    /// Takes back a connection that has served well.
    pub(crate) fn put(&self, connection: PoolConnection<Postgres>) {
        let lends_more = self.pool.num_idle() > 0
            || self.pool.size() < self.pool.options().get_max_connections();
        if self.pool.is_closed() || !lends_more {
            return;
        }
        let mut at_hand = lock(&self.at_hand);
        at_hand.connections.push(connection);
        // A sweeper also ends with its runtime, if there is more than one.
        let sweeper = at_hand.sweeper.as_ref();
        if sweeper.is_none_or(|(task, _)| task.is_finished()) {
            let runtime = Handle::current();
            let task = runtime.spawn(sweep(self.at_hand.clone()));
            at_hand.sweeper = Some((task.abort_handle(), runtime));
        }
    }

    /// After a failure: the pool shall test them all.
    pub(crate) fn distrust(&self) {
        lock(&self.at_hand).connections.clear();
    }
}

/// Gives connections back to the pool until there are none at hand.
async fn sweep(at_hand: Arc<Mutex<AtHand>>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let mut at_hand = lock(&at_hand);
        if at_hand.connections.is_empty() {
            at_hand.sweeper = None;
            return;
        }
        at_hand.connections.clear();
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        // The driver panics where it gives a connection back outside a runtime.
        if let Some((_, runtime)) = self.sweeper.take() {
            let _inside = runtime.enter();
            self.connections.clear();
        }
    }
}

fn lock(at_hand: &Mutex<AtHand>) -> MutexGuard<'_, AtHand> {
    // No step can panic halfway, so a poisoned list is still whole.
    at_hand.lock().unwrap_or_else(PoisonError::into_inner)
}

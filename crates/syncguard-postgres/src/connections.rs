//! The backend's own connections, which every statement goes through.
//!
//! They are not those of the caller's pool, so that work which holds all connections of the pool
//! cannot keep a lease from being renewed. And they are not in a pool of the driver, because that
//! one judges a connection only by asking it: it waits without a limit for a server that does not
//! answer, and keeps a connection whose session has become useless.
//!
//! - *Bounded.* An operation first waits for a permit. While it waits, nothing was sent, and it ends
//!   with its caller. Attempts and lookups share one set of permits. Renewals and releases may use
//!   [`RESERVE`] more, so they do not wait behind attempts.
//! - *Opening outlives the caller.* A task opens a connection. If the caller gives up meanwhile, the
//!   next one gets it. So callers that give up early do not leave half-open connections behind.
//! - *Judged by what is heard.* An operation gives its connection back only after an answer that
//!   leaves it in use. Otherwise it is closed, and so are the idle ones.

mod borrowed;
mod opening;
mod shared;
mod state;

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool};
use syncguard_core::Operation;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::time::timeout;

pub(crate) use self::borrowed::Borrowed;
use self::opening::wait_for_one;
use self::shared::Shared;
use crate::connect::{self, Refusal};

/// How long a connection may have been idle to be used without a test. Networks forget connections
/// after minutes, and a test costs a round trip.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long the test of an idle connection may take. A new connection costs less than a long wait.
const TEST_LIMIT: Duration = Duration::from_millis(500);

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An attempt or a lookup, which may wait.
    Attempt,
    /// A renewal or a release, on which a lease depends.
    Lease,
}

impl Purpose {
    pub(crate) const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Extend | Operation::Release | Operation::Handoff => Self::Lease,
            _ => Self::Attempt,
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(crate) enum Unconnected {
    /// The caller's pool, which says how to connect, was closed.
    Closed,
    /// One could not be opened.
    Refused(Refusal),
}

/// The connections of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

impl Connections {
    pub(crate) fn new(pool: PgPool, max: u32, limit: Duration) -> Self {
        Self { shared: Arc::new(Shared::new(pool, max, limit)) }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.shared.pool
    }

    /// Takes over a connection that was opened elsewhere.
    pub(crate) fn adopt(&self, connection: PgConnection) {
        self.shared.adopt(connection);
    }

    /// How many there may be at a time.
    pub(crate) fn max(&self) -> usize {
        self.shared.max
    }

    /// Lends a connection that can be used at once, if there is one.
    pub(crate) fn take_idle(&self, purpose: Purpose) -> Option<Borrowed> {
        let shared = &self.shared;
        if shared.pool.is_closed() {
            return None;
        }
        let permit = permit_at_once(shared, purpose)?;
        let open = shared.state().pop_used_within(TRUSTED_IDLE, Handle::current().id())?;
        Some(Borrowed::new(open, permit, shared.clone()))
    }

    /// Lends a connection, which was tested if it was idle for long. There is no time limit here.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing was sent, and a connection that was being opened for it is
    /// left to others.
    pub(crate) async fn take(&self, purpose: Purpose) -> Result<Borrowed, Unconnected> {
        let shared = &self.shared;
        let permit = permit(shared, purpose).await.map_err(|_| Unconnected::Closed)?;
        loop {
            if shared.pool.is_closed() {
                shared.state().clear();
                return Err(Unconnected::Closed);
            }
            let idle = shared.state().pop(Handle::current().id());
            let Some((mut open, since)) = idle else { break };
            if since.elapsed() <= TRUSTED_IDLE {
                return Ok(Borrowed::new(open, permit, shared.clone()));
            }
            match timeout(TEST_LIMIT.min(shared.limit), open.connection.ping()).await {
                Ok(Ok(())) => return Ok(Borrowed::new(open, permit, shared.clone())),
                // The others have been idle for longer.
                _ => shared.state().clear(),
            }
        }
        let open = wait_for_one(shared).await.map_err(Unconnected::Refused)?;
        Ok(Borrowed::new(open, permit, shared.clone()))
    }

    /// Why no connection can be opened now. `None` if those that are open are busy.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let state = self.shared.state();
        state.last_refusal().or_else(|| {
            let options = connect::options_of(&self.shared.pool);
            state.is_opening().then(|| Refusal::timed_out(&options))
        })
    }
}

async fn permit(shared: &Shared, purpose: Purpose) -> Result<OwnedSemaphorePermit, AcquireError> {
    let permits = shared.permits.clone().acquire_owned();
    match purpose {
        Purpose::Attempt => permits.await,
        Purpose::Lease => tokio::select! {
            biased;
            permit = permits => permit,
            permit = shared.reserve.clone().acquire_owned() => permit,
        },
    }
}

fn permit_at_once(shared: &Shared, purpose: Purpose) -> Option<OwnedSemaphorePermit> {
    let reserved = || shared.reserve.clone().try_acquire_owned().ok();
    let permit = shared.permits.clone().try_acquire_owned().ok();
    permit.or_else(|| (purpose == Purpose::Lease).then(reserved).flatten())
}

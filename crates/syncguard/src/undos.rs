//! How many undos of one manager there are, and how many of their requests are under way.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How many undos of a manager there are at most, about a kilobyte each. Only requests that were sent
/// need one, so a server that cannot be reached causes none. A lease beyond that number ends by its
/// TTL.
const MOST: usize = 1_024;

/// How many requests of undos are under way at a time. The other connections stay free for callers.
const AT_A_TIME: usize = 8;

/// Bounds the undos of one manager, so that they cannot fill the memory or starve its callers.
#[derive(Debug)]
pub(crate) struct Undos {
    places: Arc<Semaphore>,
    requests: Semaphore,
}

impl Undos {
    /// Room for one more undo, until the permit is dropped.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Waits until one more request may be sent. `None` never occurs: the semaphore is not closed.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.requests.acquire().await.ok()
    }
}

impl Default for Undos {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST)), requests: Semaphore::new(AT_A_TIME) }
    }
}

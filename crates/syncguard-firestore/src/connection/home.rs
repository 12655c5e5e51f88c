//! The runtime that drives a connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A runtime, and whether it still runs.
pub(super) struct Home {
    pub(super) handle: Handle,
    alive: Arc<AtomicBool>,
    /// Dropping it ends the task that watches the runtime.
    _watch: oneshot::Sender<Infallible>,
}

impl Home {
    /// Watches the current runtime. `None` outside a runtime.
    pub(super) fn here() -> Option<Self> {
        /// A runtime drops its tasks when it ends.
        struct Alive(Arc<AtomicBool>);

        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        let handle = Handle::try_current().ok()?;
        let alive = Arc::new(AtomicBool::new(true));
        let (watch, watched) = oneshot::channel::<Infallible>();
        let guard = Alive(alive.clone());
        handle.spawn(async move {
            let _guard = guard;
            let _ = watched.await;
        });
        Some(Self { handle, alive, _watch: watch })
    }

    pub(super) fn alive(&self) -> Arc<AtomicBool> {
        self.alive.clone()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

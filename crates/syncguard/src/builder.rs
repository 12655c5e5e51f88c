//! The builder of a lock manager.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use syncguard_core::{AnyBackend, Backend, Error};
use tokio::runtime::Handle;

use crate::background::{Background, OnReleaseError};
use crate::fences::HighestFences;
use crate::manager::LockManager;
use crate::observe::{Observed, Observer, OnEvent};
use crate::queues::Queues;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::undos::Undos;
use crate::{Backoff, Event, preflight};

/// Settings of a [`LockManager`], and defaults for its requests.
///
/// # Default
///
/// - requests as [`LockRequest`](crate::LockRequest) says
/// - no observer
/// - a `tracing` warning for a release that fails in the background
/// - a shutdown limit of 10 s
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
/// use std::time::Duration;
/// use syncguard::LockManager;
/// use syncguard_memory::MemoryBackend;
///
/// let locks = LockManager::builder(MemoryBackend::new())
///     .ttl(Duration::from_secs(10))
///     .wait(Duration::from_secs(20))
///     .keep_alive()
///     .observer(|event| println!("{:?} took {:?}", event.operation(), event.duration()))
///     .build();
/// let guard = locks.lock("invoice:7").acquire().await?;
/// # drop(guard); Ok(()) }
/// ```
#[must_use = "does nothing until `build` is called"]
pub struct LockManagerBuilder {
    backend: AnyBackend,
    settings: Settings,
    serve_pollers: bool,
    observer: Option<Arc<OnEvent>>,
    raw_names: bool,
    on_release_error: Option<Arc<OnReleaseError>>,
    runtime: Option<Handle>,
    shutdown_limit: Duration,
    log_preflight: bool,
}

impl LockManager {
    /// Locks on `backend`, with the defaults of [`builder`](Self::builder).
    #[must_use]
    pub fn new(backend: impl Backend) -> Self {
        Self::builder(backend).build()
    }

    /// Locks on `backend`, with an observer, request defaults or other settings of your own.
    pub fn builder(backend: impl Backend) -> LockManagerBuilder {
        LockManagerBuilder::new(AnyBackend::new(backend))
    }
}

impl LockManagerBuilder {
    pub(crate) fn new(backend: AnyBackend) -> Self {
        Self {
            backend,
            settings: Settings::default(),
            serve_pollers: false,
            observer: None,
            raw_names: false,
            on_release_error: None,
            runtime: None,
            shutdown_limit: Duration::from_secs(10),
            log_preflight: false,
        }
    }

    /// Sets the TTL of requests that set none: [`LockRequest::ttl`](crate::LockRequest::ttl).
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Sets the wait limit of requests that set none:
    /// [`LockRequest::wait`](crate::LockRequest::wait).
    pub const fn wait(mut self, limit: Duration) -> Self {
        self.settings.wait = Some(limit);
        self
    }

    /// Sets the retries of requests that set none:
    /// [`LockRequest::max_retries`](crate::LockRequest::max_retries).
    pub const fn max_retries(mut self, retries: u32) -> Self {
        self.settings.max_retries = Some(retries);
        self
    }

    /// Sets the backoff of requests that set none:
    /// [`LockRequest::backoff`](crate::LockRequest::backoff).
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Renews leases unless a request says otherwise:
    /// [`LockRequest::keep_alive`](crate::LockRequest::keep_alive).
    pub const fn keep_alive(mut self) -> Self {
        self.settings.keep_alive = Some(true);
        self
    }

    /// Renews no lease, even with [`LockRequest::run`](crate::LockRequest::run), unless a request says
    /// otherwise.
    pub const fn without_keep_alive(mut self) -> Self {
        self.settings.keep_alive = Some(false);
        self
    }

    /// Bounds how long locks are held, unless a request sets its own bound:
    /// [`LockRequest::max_hold`](crate::LockRequest::max_hold).
    pub const fn max_hold(mut self, limit: Duration) -> Self {
        self.settings.max_hold = Some(limit);
        self
    }

    /// Gives clients that only poll their share of a contended key. Default: no.
    ///
    /// Set it if such clients contend with several tasks of this process for one key: the TypeScript
    /// library, or a process whose notifications are switched off. Without it they get a turn only
    /// now and then, because a release here serves the next waiter here first, or wakes processes
    /// that listen. With it they get at least a tenth of the grants.
    ///
    /// The price: after every 4 s of contention the process leaves the key alone for 1 s. Its own
    /// waiters get a fifth fewer grants, a third fewer beside eight busy pollers, and wait up to 1 s
    /// longer. A key without waiters in this process costs nothing more.
    pub const fn serve_pollers(mut self) -> Self {
        self.serve_pollers = true;
        self
    }

    /// Calls `on_event` after every operation on the backend, every wait and every loss, for metrics.
    /// It must not block. A panic in it is caught. Default: none.
    pub fn observer(mut self, on_event: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(on_event));
        self
    }

    /// Gives the observer raw keys and lock ids too, not just their fingerprints. Default: no. Use it
    /// only if events are as well protected as the database.
    pub const fn observe_raw_names(mut self) -> Self {
        self.raw_names = true;
        self
    }

    /// Calls `on_error` instead of logging a warning if a release in the background fails for good:
    /// the lease then stands until its TTL. It must not block. A panic in it is caught.
    pub fn on_release_error(mut self, on_error: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_release_error = Some(Arc::new(on_error));
        self
    }

    /// Sets the runtime on which background releases and renewals go on if the runtime in which a lock
    /// was acquired is gone. Default: the runtime in which [`build`](Self::build) is called, if there
    /// is one.
    ///
    /// Set it if locks are acquired in short-lived runtimes, such as one per test or per thread.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets how long [`LockManager::shutdown`] waits at most. Default: 10 s. Keep it below the time
    /// that your service gets to stop.
    pub const fn shutdown_limit(mut self, limit: Duration) -> Self {
        self.shutdown_limit = limit;
        self
    }

    /// Checks the store once, in the background, and logs what it finds. Default: no.
    ///
    /// It logs a warning if a failure can cost more than it has to, and an error if locks do not work.
    /// [`LockManager::preflight`] returns the same findings. It needs a runtime: the current one, or
    /// the one that [`runtime`](Self::runtime) sets.
    pub const fn log_preflight(mut self) -> Self {
        self.log_preflight = true;
        self
    }

    /// Builds the manager.
    #[must_use]
    pub fn build(self) -> LockManager {
        let Self {
            backend,
            settings,
            serve_pollers,
            observer,
            raw_names,
            on_release_error,
            runtime,
            shutdown_limit,
            log_preflight,
        } = self;
        let observer = observer.map(|on_event| Observer { on_event, raw_names });
        let runtime = runtime.or_else(|| Handle::try_current().ok());
        match &runtime {
            Some(runtime) if log_preflight => {
                preflight::log_in_background(runtime, backend.clone());
            }
            None if log_preflight => tracing::warn!("no preflight: there is no tokio runtime"),
            _ => {}
        }
        let shared = Shared {
            backend: Observed { backend, observer },
            background: Background::new(on_release_error, runtime),
            queues: Queues::default(),
            fences: HighestFences::default(),
            undos: Undos::default(),
            terms: AtomicUsize::default(),
            shutdown_limit,
            serve_pollers,
        };
        LockManager::from_parts(Arc::new(shared), settings)
    }
}

impl fmt::Debug for LockManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManagerBuilder")
            .field("backend", &self.backend)
            .field("settings", &self.settings)
            .field("shutdown_limit", &self.shutdown_limit)
            .finish_non_exhaustive()
    }
}

//! Background work of one manager: tracks it, retries releases, and finishes both at shutdown.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Key, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::backoff::Backoff;
use crate::errand::Errand;

pub(crate) type OnReleaseError = dyn Fn(&Error) + Send + Sync;

/// The background work of one lock manager.
#[derive(Clone)]
pub(crate) struct Background {
    tracker: TaskTracker,
    closing: CancellationToken,
    on_release_error: Option<Arc<OnReleaseError>>,
    /// Where work goes on if its own runtime is gone.
    fallback: Option<Handle>,
}

impl Background {
    pub(crate) fn new(
        on_release_error: Option<Arc<OnReleaseError>>,
        fallback: Option<Handle>,
    ) -> Self {
        let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
        Self { tracker, closing, on_release_error, fallback }
    }

    /// Keeps shutdown waiting until it is dropped.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Cancelled when shutdown begins.
    pub(crate) const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) const fn fallback(&self) -> Option<&Handle> {
        self.fallback.as_ref()
    }

    /// Runs `release` in a task, again and again while it fails transiently and the lease has not
    /// ended at `until`. It may be called anywhere, also outside a runtime and while a runtime shuts
    /// down. If no runtime is left, that is reported.
    pub(crate) fn release<F, R>(&self, home: &Handle, key: &Key, until: Instant, release: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<()>> + Send + 'static,
    {
        let (background, release) = (self.clone(), Arc::new(release));
        let work = move || {
            let (background, release) = (background.clone(), release.clone());
            async move {
                if let Err(error) = retry(&*release, until).await {
                    background.report(&error);
                }
            }
        };
        let (background, key) = (self.clone(), key.clone());
        let abandoned = move || {
            let error = Error::new(ErrorCode::Aborted, Operation::Release).with_key(&key);
            background.report(&error.with_message(
                "no runtime is left to send the release: set one with LockManagerBuilder::runtime",
            ));
        };
        Errand::new(work, abandoned).tracked(self.token()).start(home, self.fallback());
    }

    /// Waits for all background work, at most `limit`.
    pub(crate) async fn shutdown(&self, limit: Duration) -> Result<()> {
        self.closing.cancel();
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.map_err(|elapsed| {
            Error::new(ErrorCode::NetworkTimeout, Operation::Shutdown)
                .with_message(format!(
                    "releases or the work of leaders were still under way after {limit:?}: their \
                     leases end by their TTL"
                ))
                .with_source(elapsed)
        })
    }

    /// Reports a release that failed for good.
    pub(crate) fn report(&self, error: &Error) {
        match &self.on_release_error {
            // A callback that panics must not take a destructor down with it.
            Some(callback) => {
                let _ = catch_unwind(AssertUnwindSafe(|| callback(error)));
            }
            None => tracing::warn!(
                error = error as &dyn std::error::Error,
                "a lease was not released, it ends by its TTL"
            ),
        }
    }
}

async fn retry<R>(release: impl Fn() -> R, until: Instant) -> Result<()>
where
    R: Future<Output = Result<()>>,
{
    let mut pauses = Backoff::default().pauses();
    loop {
        let Err(error) = release().await else {
            return Ok(());
        };
        let pause = pauses.next();
        if !error.is_transient() || Instant::now() + pause >= until {
            return Err(error);
        }
        sleep(pause).await;
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("tasks", &self.tracker.len())
            .field("closing", &self.closing.is_cancelled())
            .finish_non_exhaustive()
    }
}

//! Releases that nobody awaits: tracked, retried, reported, and finished at shutdown.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::Backoff;

pub(crate) type OnReleaseError = dyn Fn(&Error) + Send + Sync;

/// The background work of one lock manager.
#[derive(Clone)]
pub(crate) struct Background {
    tracker: TaskTracker,
    closing: CancellationToken,
    on_release_error: Option<Arc<OnReleaseError>>,
}

impl Background {
    pub(crate) fn new(on_release_error: Option<Arc<OnReleaseError>>) -> Self {
        Self { tracker: TaskTracker::new(), closing: CancellationToken::new(), on_release_error }
    }

    /// Keeps shutdown waiting until it is dropped.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// Cancelled when shutdown begins.
    pub(crate) const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Runs `release` on the runtime of `handle`, again and again while it fails transiently and
    /// the lease has not ended at `until`. It may be called anywhere, also outside a runtime and
    /// while that runtime shuts down; if it is not even run, `unfinished` is reported.
    pub(crate) fn release<F, R>(
        &self,
        handle: &Handle,
        until: Instant,
        unfinished: Error,
        release: F,
    ) where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<bool>> + Send,
    {
        let mut unfinished = Unfinished(Some((self.clone(), unfinished)));
        let task = async move {
            let mut pauses = Backoff::default().pauses(None);
            let outcome = loop {
                let error = match release().await {
                    Ok(released) => break Ok(released),
                    Err(error) => error,
                };
                match pauses.next() {
                    Some(pause) if error.is_transient() && Instant::now() + pause < until => {
                        sleep(pause).await;
                    }
                    _ => break Err(error),
                }
            };
            if let (Some((background, _)), Err(error)) = (unfinished.0.take(), outcome) {
                background.report(&error);
            }
        };
        // The handle of the task is not needed: the tracker knows it.
        drop(self.tracker.spawn_on(task, handle));
    }

    /// Waits for all background work, at most `limit`.
    pub(crate) async fn shutdown(&self, limit: Duration) -> Result<()> {
        self.closing.cancel();
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.map_err(|elapsed| {
            Error::new(ErrorCode::NetworkTimeout, Operation::Shutdown)
                .with_message("releases were still under way; their leases end by their TTL")
                .with_source(elapsed)
        })
    }

    fn report(&self, error: &Error) {
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

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("tasks", &self.tracker.len())
            .field("closing", &self.closing.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Reports its error when a task is dropped before its end: the runtime shuts down, or it panics.
struct Unfinished(Option<(Background, Error)>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((background, error)) = self.0.take() {
            background.report(&error);
        }
    }
}

/// What is reported when a release could not be carried out to its end.
pub(crate) fn unfinished() -> Error {
    Error::new(ErrorCode::Aborted, Operation::Release)
        .with_message("its task was ended before the release was done")
}

//! A task that starts again on another runtime if its own shuts down.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::runtime::let_others_take_the_last_task;

type Work = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Work for a task. If the task is dropped before the work is done, because its runtime shuts down,
/// the work starts again on the next runtime, until there is none left.
pub(crate) struct Errand {
    work: Arc<Work>,
    /// Called if no runtime did the work, or if it panicked.
    abandoned: Option<Box<dyn FnOnce() + Send>>,
    /// The runtimes to try, the next one last.
    runtimes: Vec<Handle>,
    /// Keeps shutdown waiting.
    tracked: Option<TaskTrackerToken>,
    /// The work runs at this moment. If the errand is dropped meanwhile, the work panicked.
    running: bool,
}

impl Errand {
    pub(crate) fn new<F>(
        work: impl Fn() -> F + Send + Sync + 'static,
        abandoned: impl FnOnce() + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            work: Arc::new(move || Box::pin(work())),
            abandoned: Some(Box::new(abandoned)),
            runtimes: Vec::new(),
            tracked: None,
            running: false,
        }
    }

    pub(crate) fn tracked(mut self, token: TaskTrackerToken) -> Self {
        self.tracked = Some(token);
        self
    }

    /// Starts the work on `home`, where the lease was acquired. If that runtime is gone, or goes while
    /// the work is under way, it moves to the one that is current, and last to the `fallback`.
    pub(crate) fn start(mut self, home: &Handle, fallback: Option<&Handle>) {
        let candidates = fallback.cloned().into_iter().chain(Handle::try_current().ok());
        self.runtimes = candidates.filter(|other| other.id() != home.id()).collect();
        self.runtimes.push(home.clone());
        self.spawn();
        let_others_take_the_last_task(home);
    }

    fn spawn(mut self) {
        if let Some(runtime) = self.runtimes.pop() {
            // On a runtime that is gone, `spawn` drops its future, so `drop` tries the next one.
            drop(runtime.spawn(async move {
                let mut work = (self.work)();
                poll_fn(|cx| {
                    self.running = true;
                    let polled = work.as_mut().poll(cx);
                    self.running = false;
                    polled
                })
                .await;
                self.finish();
            }));
        } else if let Some(abandoned) = self.abandoned.take() {
            abandoned();
        }
    }

    fn finish(mut self) {
        self.abandoned = None;
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let Some(abandoned) = self.abandoned.take() else {
            return;
        };
        // Not `thread::panicking`: a guard may be dropped by a panic that has nothing to do with it.
        if self.running {
            // The work has a bug; elsewhere it would panic again.
            return abandoned();
        }
        let next = Self {
            work: self.work.clone(),
            abandoned: Some(abandoned),
            runtimes: std::mem::take(&mut self.runtimes),
            tracked: self.tracked.take(),
            running: false,
        };
        next.spawn();
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").finish_non_exhaustive()
    }
}

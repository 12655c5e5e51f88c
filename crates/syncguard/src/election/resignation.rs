//! Gives up a lease for good: asks until the store has answered, or the lease is over.

use std::sync::Arc;

use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use super::publisher::Publisher;
use super::watchdog::Watchdog;
use crate::errand::Errand;
use crate::{Backoff, LockGuard};

/// Ends one term, after its work.
pub(super) struct Resignation {
    pub(super) guard: Arc<LockGuard>,
    /// Work in other threads, which nobody can drop.
    pub(super) work: TaskTracker,
    pub(super) publisher: Publisher,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) outcome: Arc<Outcome>,
}

/// How a term ended, once it is known.
pub(super) type Outcome = watch::Sender<Option<Result<bool>>>;

impl Resignation {
    /// Starts to release the lease, in a task for which shutdown waits.
    pub(super) fn start(self) {
        let (shared, _, home) = self.guard.parts();
        let (tracked, home) = (shared.background.token(), home.clone());
        let (fallback, resignation) = (shared.background.fallback().cloned(), Arc::new(self));
        let by_end = resignation.clone();
        let work = move || {
            let resignation = resignation.clone();
            async move { resignation.run().await }
        };
        let abandoned = move || by_end.tell(Err(abandoned(&by_end.guard)));
        Errand::new(work, abandoned).tracked(tracked).start(&home, fallback.as_ref());
    }

    async fn run(&self) {
        let (_, lease, _) = self.guard.parts();
        // The lease is still renewed. If it is over nevertheless, the watchdog stays awake.
        self.work.close();
        self.work.wait().await;
        if let Some(watchdog) = &self.watchdog {
            watchdog.stop();
        }
        let released = self.release(lease.stands_until()).await;
        let answered = released.is_ok();
        self.tell(released);
        if answered {
            self.publisher.withdraw().await;
        }
    }

    /// A request that fails is sent again, whatever its error says, because the key stays without a
    /// leader until it was answered.
    async fn release(&self, until: Instant) -> Result<bool> {
        let mut pauses = Backoff::default().pauses_after_failure();
        let mut last = None;
        let released = timeout_at(until, async {
            loop {
                match self.guard.end().await {
                    Ok(released) => return released,
                    Err(error) => last = Some(error),
                }
                sleep(pauses.next()).await;
            }
        });
        if let Ok(released) = released.await {
            return Ok(released);
        }
        let error = last.unwrap_or_else(|| {
            Error::new(ErrorCode::NetworkTimeout, Operation::Release)
                .with_key(self.guard.key())
                .with_message("the server did not answer until the lease was over")
        });
        self.guard.give_up(&error);
        Err(error)
    }

    fn tell(&self, outcome: Result<bool>) {
        self.outcome.send_replace(Some(outcome));
    }
}

fn abandoned(guard: &LockGuard) -> Error {
    Error::new(ErrorCode::Aborted, Operation::Release)
        .with_key(guard.key())
        .with_message("no runtime is left to send the release: the lease ends by its TTL")
}

//! Announces the two edges of a term: that it is about to end, and that it is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::errand::Errand;
use crate::lease::HeldLease;
use crate::loss;
use crate::shared::Shared;

/// Watches one term.
#[derive(Clone)]
pub(super) struct Ender {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Arc<HeldLease>,
    pub(super) margin: Duration,
    /// The caller's token.
    pub(super) cancel: CancellationToken,
    /// Cancelled at the first edge, and never reset.
    pub(super) ending: CancellationToken,
    /// Cancelled at the second edge.
    pub(super) over: CancellationToken,
}

impl Ender {
    /// Starts a task that lives as long as the term. If its runtime goes away, it moves to another.
    pub(super) fn start(self, home: &Handle) {
        let fallback = self.shared.background.fallback().cloned();
        let (by_work, by_end) = (self.clone(), self);
        let work = move || {
            let ender = by_work.clone();
            async move { ender.run().await }
        };
        // Nobody watches the term any more, so nobody may rely on it.
        let abandoned = move || by_end.end();
        Errand::new(work, abandoned).start(home, fallback.as_ref());
    }

    async fn run(&self) {
        tokio::select! {
            biased;
            () = self.lease.ended() => {}
            () = self.lease.within(self.margin) => {}
            () = self.cancel.cancelled() => {}
            () = self.shared.background.closing().cancelled() => {}
            () = self.ending.cancelled() => {}
        }
        self.ending.cancel();
        tokio::select! {
            biased;
            () = self.lease.ended() => {}
            () = loss::lost(&self.shared, &self.lease) => {}
        }
        self.end();
    }

    fn end(&self) {
        self.ending.cancel();
        self.over.cancel();
    }
}

//! Announces the two edges of a term: that it is about to end, and that it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::errand::Errand;
use crate::lease::HeldLease;
use crate::loss;
use crate::shared::Shared;

/// The edges of one term. Clones are the same.
#[derive(Clone)]
pub(super) struct Ender {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    /// Cancelled at the first edge, and never reset.
    pub(super) ending: CancellationToken,
    /// Cancelled at the second edge.
    pub(super) over: CancellationToken,
    /// How long before the deadline of the lease the term is over.
    head_start: Duration,
    /// The term counts as led.
    counted: Arc<AtomicBool>,
}

impl Ender {
    /// Announces the edges of a term that begins now.
    pub(super) fn new(shared: &Arc<Shared>, lease: &Arc<HeldLease>, head_start: Duration) -> Self {
        shared.terms.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: shared.clone(),
            lease: lease.clone(),
            ending: CancellationToken::new(),
            over: CancellationToken::new(),
            head_start,
            counted: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Starts a task that lives as long as the term. If its runtime goes away, it moves to another.
    pub(super) fn start(&self, home: &Handle, margin: Duration, cancel: &CancellationToken) {
        let fallback = self.shared.background.fallback().cloned();
        let (by_work, by_end, cancel) = (self.clone(), self.clone(), cancel.clone());
        let work = move || {
            let (ender, cancel) = (by_work.clone(), cancel.clone());
            async move { ender.run(margin, &cancel).await }
        };
        // Nobody watches the term any more, so nobody may rely on it.
        let abandoned = move || by_end.end();
        Errand::new(work, abandoned).start(home, fallback.as_ref());
    }

    async fn run(&self, margin: Duration, cancel: &CancellationToken) {
        tokio::select! {
            biased;
            () = self.lease.ended() => {}
            () = self.lease.within(margin) => {}
            () = cancel.cancelled() => {}
            () = self.shared.background.closing().cancelled() => {}
            () = self.ending.cancelled() => {}
        }
        self.ending.cancel();
        tokio::select! {
            biased;
            () = self.lease.ended() => {}
            () = self.lost() => {}
        }
        self.end();
    }

    /// Resolves when the term is over, by a timer of its own: it needs no other task.
    pub(super) async fn lost(&self) {
        tokio::select! {
            biased;
            () = self.over.cancelled() => {}
            () = self.lease.within(self.head_start) => {}
        }
        if self.lease.is_lost() {
            loss::signal(&self.shared, &self.lease);
        }
        // Whoever hears of it by another way must not find the term alive.
        self.end();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled() || self.remaining().is_zero()
    }

    pub(super) fn remaining(&self) -> Duration {
        let held = !self.over.is_cancelled();
        if held { self.lease.remaining().saturating_sub(self.head_start) } else { Duration::ZERO }
    }

    /// The term is over.
    pub(super) fn end(&self) {
        self.ending.cancel();
        self.over.cancel();
        if self.counted.swap(false, Ordering::Relaxed) {
            self.shared.terms.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

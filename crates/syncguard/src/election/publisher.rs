//! Publishes the name and the value of a leader, and renews them as long as its lease.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use syncguard_core::{Error, ErrorCode, Operation, Publication, Result};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::errand::Errand;
use crate::lease::HeldLease;
use crate::shared::Shared;

/// What one term publishes. Clones are the same.
#[derive(Clone)]
pub(super) struct Publisher(Arc<State>);

struct State {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    home: Handle,
    newest: Mutex<Option<Publication>>,
    /// One request at a time, so that an older publication does not follow a newer one. If one gets no
    /// answer and is carried out late, the next renewal corrects that.
    sending: tokio::sync::Mutex<()>,
    /// Whether a task renews it.
    renewed: AtomicBool,
}

/// A publication is renewed after this part of the TTL, as the lease is.
const RENEWAL_PART: u32 = 3;
/// One that failed is sent again after this part of the TTL.
const RETRY_PART: u32 = 12;

impl Publisher {
    pub(super) fn new(shared: &Arc<Shared>, lease: &Arc<HeldLease>, home: &Handle) -> Self {
        Self(Arc::new(State {
            shared: shared.clone(),
            lease: lease.clone(),
            home: home.clone(),
            newest: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            renewed: AtomicBool::new(false),
        }))
    }

    /// Publishes in the background, and renews from here on.
    pub(super) fn begin(&self, publication: Publication) {
        *self.newest() = Some(publication);
        if self.0.renewed.swap(true, Ordering::Relaxed) {
            return;
        }
        let publisher = self.clone();
        let work = move || {
            let publisher = publisher.clone();
            async move { publisher.run().await }
        };
        // What is not renewed expires.
        let fallback = self.0.shared.background.fallback().cloned();
        Errand::new(work, || {}).start(&self.0.home, fallback.as_ref());
    }

    /// Publishes, and renews from here on. A task sends it, where it is also renewed, because a request that
    /// its caller leaves behind could follow a newer one.
    pub(super) async fn publish(&self, publication: Publication) -> Result<()> {
        self.begin(publication);
        let publisher = self.clone();
        let sending = self.0.home.spawn(async move { publisher.send().await });
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            // Nobody drives that runtime, or the store does not answer.
            () = self.0.lease.over() => return Err(self.over()),
        };
        match sent {
            Ok(sent) => sent,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // That runtime has ended.
                Err(_) => self.send().await,
            },
        }
    }

    /// Removes what was published. What stays behind is shown to nobody, and expires.
    pub(super) async fn withdraw(&self) {
        if self.newest().is_some() {
            let _one_at_a_time = self.0.sending.lock().await;
            drop(self.0.shared.backend.withdraw(&self.0.lease.lease()).await);
        }
    }

    async fn run(&self) {
        let lease = &self.0.lease;
        let mut warned = false;
        loop {
            let ttl = lease.ttl().as_duration();
            let pause = match self.send().await {
                Ok(()) => ttl / RENEWAL_PART,
                Err(error) if error.code() == ErrorCode::Lost => return,
                Err(error) => {
                    if !warned {
                        warn(&error);
                    }
                    warned = true;
                    ttl / RETRY_PART
                }
            };
            tokio::select! {
                biased;
                () = lease.ended() => return,
                () = lease.over() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Sends the newest publication.
    async fn send(&self) -> Result<()> {
        let State { shared, lease, sending, .. } = &*self.0;
        let _one_at_a_time = sending.lock().await;
        let Some(newest) = self.newest().clone() else {
            return Ok(());
        };
        let over = lease.is_ended() || lease.is_lost();
        if !over && shared.backend.publish(&lease.lease(), &newest, lease.ttl()).await? {
            return Ok(());
        }
        Err(self.over())
    }

    fn over(&self) -> Error {
        Error::new(ErrorCode::Lost, Operation::Publish)
            .with_key(self.0.lease.granted().key())
            .with_message("the term is over")
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Option<Publication>> {
        // Nothing panics while it is locked.
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn(error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the name and the value of a leader were not published: observers see the fence alone"
    );
}

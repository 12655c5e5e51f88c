//! Publishes the name and the value of a leader, and renews them as long as its lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use syncguard_core::{Backend, Error, ErrorCode, Operation, Publication, Result};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
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
    /// The newest publication. It is locked while it is sent, so that an older one never follows it.
    newest: Mutex<Option<Publication>>,
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
            renewed: AtomicBool::new(false),
        }))
    }

    /// Publishes in the background.
    pub(super) fn begin(&self, publication: Publication) {
        let publisher = self.clone();
        // Nobody else knows the publisher yet, so the mutex is free.
        if let Ok(mut newest) = self.0.newest.try_lock() {
            *newest = Some(publication);
        }
        publisher.renew();
    }

    /// Publishes, and renews it from here on.
    pub(super) async fn publish(&self, publication: Publication) -> Result<()> {
        let mut newest = self.0.newest.lock().await;
        *newest = Some(publication);
        self.renew();
        self.send(newest.as_ref()).await
    }

    /// Starts the task that renews, unless it runs.
    fn renew(&self) {
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

    async fn run(&self) {
        let lease = &self.0.lease;
        let mut warned = false;
        loop {
            let newest = self.0.newest.lock().await;
            let sent = self.send(newest.as_ref()).await;
            drop(newest);
            let ttl = lease.ttl().as_duration();
            let pause = match sent {
                Ok(()) => ttl / RENEWAL_PART,
                Err(error) => {
                    if !warned {
                        warn(&error);
                    }
                    warned = true;
                    if !error.is_transient() {
                        return;
                    }
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

    async fn send(&self, publication: Option<&Publication>) -> Result<()> {
        let Some(publication) = publication else {
            return Ok(());
        };
        let State { shared, lease, .. } = &*self.0;
        let lost = || {
            Error::new(ErrorCode::Lost, Operation::Publish)
                .with_key(lease.granted().key())
                .with_message("the term is over")
        };
        if lease.is_ended() || lease.is_lost() {
            return Err(lost());
        }
        let (present, ttl) = (lease.lease(), lease.ttl());
        let published = shared.backend.backend.publish(&present, publication, ttl).await?;
        if published { Ok(()) } else { Err(lost()) }
    }
}

fn warn(error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the name and the value of a leader were not published: observers see the fence alone"
    );
}

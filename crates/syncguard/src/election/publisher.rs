//! Publishes the name and the value of a leader, and renews them as long as its lease.

use std::sync::Arc;

use syncguard_core::{Error, ErrorCode, Operation, Publication, Result};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
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
    newest: watch::Sender<Newest>,
    answered: watch::Sender<Answered>,
    /// One request at a time, so that an older publication does not follow a newer one. If one gets no
    /// answer and is carried out late, the next renewal corrects that.
    sending: Mutex<()>,
}

/// The newest publication, if there is one, and its number.
#[derive(Clone)]
struct Newest {
    number: u64,
    publication: Option<Publication>,
}

/// The answer to the publication with this number, and to those before it.
struct Answered {
    number: u64,
    answer: Result<()>,
}

/// Nothing more is sent in this term, so this is the answer to all publications.
const ALL: u64 = u64::MAX;

/// A publication is renewed after this part of the TTL, as the lease is.
const RENEWAL_PART: u32 = 3;
/// One that failed is sent again after this part of the TTL.
const RETRY_PART: u32 = 12;

impl Publisher {
    /// Starts a task that sends the newest publication, and renews it until the term is over. The task runs
    /// where the lease is renewed.
    pub(super) fn start(
        shared: &Arc<Shared>,
        lease: &Arc<HeldLease>,
        home: &Handle,
        first: Option<Publication>,
    ) -> Self {
        let publisher = Self(Arc::new(State {
            shared: shared.clone(),
            lease: lease.clone(),
            newest: watch::Sender::new(Newest { number: 0, publication: first }),
            answered: watch::Sender::new(Answered { number: 0, answer: Ok(()) }),
            sending: Mutex::default(),
        }));
        let (by_work, by_end) = (publisher.clone(), publisher.clone());
        let work = move || {
            let publisher = by_work.clone();
            async move { publisher.run().await }
        };
        let abandoned = move || by_end.tell(ALL, Err(by_end.abandoned()));
        // What is not renewed expires.
        Errand::new(work, abandoned).start(home, shared.background.fallback());
        publisher
    }

    /// Publishes, and renews from here on. The task sends it, because a request that its caller leaves
    /// behind could follow a newer one.
    pub(super) async fn publish(&self, publication: Publication) -> Result<()> {
        let mut answered = self.0.answered.subscribe();
        let mut number = 0;
        self.0.newest.send_modify(|newest| {
            newest.number += 1;
            number = newest.number;
            newest.publication = Some(publication);
        });
        tokio::select! {
            biased;
            // It fails only if the sender is gone, which `self` keeps.
            Ok(answered) = answered.wait_for(|answered| answered.number >= number) => {
                answered.answer.clone()
            }
            // Nobody drives that runtime, or the store does not answer.
            () = self.0.lease.over() => Err(self.over()),
            () = self.0.lease.ended() => Err(self.over()),
        }
    }

    /// Removes what was published. What stays behind is shown to nobody, and expires.
    pub(super) async fn withdraw(&self) {
        let published = self.0.newest.borrow().publication.is_some();
        if published {
            let _one_at_a_time = self.0.sending.lock().await;
            drop(self.0.shared.backend.withdraw(&self.0.lease.lease()).await);
        }
    }

    async fn run(&self) {
        let lease = &self.0.lease;
        let mut newest = self.0.newest.subscribe();
        let mut warned = false;
        loop {
            let Newest { number, publication } = newest.borrow_and_update().clone();
            let answer = self.send(publication).await;
            let is_over = answer.as_ref().is_err_and(|error| error.code() == ErrorCode::Lost);
            if is_over {
                return self.tell(ALL, answer);
            }
            self.tell(number, answer.clone());
            let ttl = lease.ttl().as_duration();
            let pause = match answer {
                Ok(()) => ttl / RENEWAL_PART,
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
                // It fails only if the sender is gone, which `self` keeps.
                _ = newest.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn send(&self, publication: Option<Publication>) -> Result<()> {
        let State { shared, lease, sending, .. } = &*self.0;
        let _one_at_a_time = sending.lock().await;
        let Some(publication) = publication else {
            return Ok(());
        };
        let over = lease.is_ended() || lease.is_lost();
        if !over && shared.backend.publish(&lease.lease(), &publication, lease.ttl()).await? {
            return Ok(());
        }
        Err(self.over())
    }

    fn tell(&self, number: u64, answer: Result<()>) {
        self.0.answered.send_replace(Answered { number, answer });
    }

    fn over(&self) -> Error {
        Error::new(ErrorCode::Lost, Operation::Publish)
            .with_key(self.0.lease.granted().key())
            .with_message("the term is over")
    }

    fn abandoned(&self) -> Error {
        Error::new(ErrorCode::Aborted, Operation::Publish)
            .with_key(self.0.lease.granted().key())
            .with_message("no runtime is left to publish, or the backend panicked")
    }
}

fn warn(error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the name and the value of a leader were not published: observers see the fence alone"
    );
}

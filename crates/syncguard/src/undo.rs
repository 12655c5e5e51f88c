//! Undoes, by lock id, what an attempt without an answer may have been granted.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Key, LockId, Operation, Result, Sent};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::backoff::Backoff;
use crate::queue::Terms;
use crate::shared::Shared;

/// Releases by id when it is dropped, unless it is disarmed or the request was never sent. One is
/// enough for all attempts of a waiter, because they share one id.
#[derive(Debug)]
pub(crate) struct Undo {
    shared: Arc<Shared>,
    home: Handle,
    key: Key,
    terms: Terms,
    /// The request to undo.
    sent: Sent,
    /// Keeps shutdown waiting until the release is under way, or the guard is there.
    tracked: Option<TaskTrackerToken>,
    armed: bool,
}

/// How long an attempt is undone at most.
const LIMIT: Duration = Duration::from_secs(60);

/// How often the server is asked again if it knows nothing of the id: the request may be late.
const REPEATS: u32 = 4;

impl Undo {
    /// Undoes a request that was sent.
    pub(crate) fn new(shared: &Arc<Shared>, home: &Handle, key: &Key, terms: &Terms) -> Self {
        let undo = Self::once_sent(shared, home, key, terms, Sent::default());
        undo.sent.mark();
        undo
    }

    /// Undoes a request if it is sent.
    pub(crate) fn once_sent(
        shared: &Arc<Shared>,
        home: &Handle,
        key: &Key,
        terms: &Terms,
        sent: Sent,
    ) -> Self {
        Self {
            shared: shared.clone(),
            home: home.clone(),
            key: key.clone(),
            terms: terms.clone(),
            sent,
            tracked: None,
            armed: true,
        }
    }

    /// What it would undo.
    pub(crate) const fn request(&self) -> (&Arc<Shared>, &Key, &Terms, &Sent) {
        (&self.shared, &self.key, &self.terms, &self.sent)
    }

    pub(crate) const fn home(&self) -> &Handle {
        &self.home
    }

    /// Keeps shutdown waiting from now on.
    pub(crate) fn tracked(mut self) -> Self {
        self.tracked = Some(self.shared.background.token());
        self
    }

    /// For a guard, which shutdown does not wait for.
    pub(crate) fn untracked(mut self) -> Self {
        self.tracked = None;
        self
    }

    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

/// Whether a request that failed like this has changed nothing.
pub(crate) const fn changed_nothing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::AuthFailed | ErrorCode::InvalidArgument)
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.armed && self.sent.is_marked() {
            let Some(place) = self.shared.undos.place() else {
                let error = Error::new(ErrorCode::RateLimited, Operation::Release);
                return self.shared.background.report(&error.with_key(&self.key).with_message(
                    "too many requests without an answer: one of them may have been granted, and \
                     its lease then ends by its TTL",
                ));
            };
            let place = Arc::new(place);
            let until = Instant::now() + self.terms.ttl.as_duration().min(LIMIT);
            let (shared, key) = (self.shared.clone(), self.key.clone());
            let id = self.terms.id.clone();
            self.shared.background.release(&self.home, &self.key, until, move || {
                let (shared, key, id) = (shared.clone(), key.clone(), id.clone());
                let place = place.clone();
                async move {
                    let _place = place;
                    let undone = release_by_id(&shared, &key, &id).await;
                    undone.map_err(|error| error.with_key(&key))
                }
            });
        }
    }
}

/// Asks as often as it may, even after it found a lease: an earlier attempt may have brought that
/// one, and a later attempt may still be on its way.
async fn release_by_id(shared: &Shared, key: &Key, id: &LockId) -> Result<()> {
    let mut pauses = Backoff::default().pauses();
    for asked in 0..=REPEATS {
        if asked > 0 {
            sleep(pauses.next()).await;
        }
        let _turn = shared.undos.turn().await;
        if shared.backend.release_by_id(id).await? {
            shared.queues.update(key, |queue| ((), queue.freed(None)));
        }
    }
    Ok(())
}

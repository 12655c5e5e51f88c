//! Undoes, by lock id, what an attempt without an answer may have been granted.

use std::sync::Arc;
use std::time::Duration;

use syncguard_core::{ErrorCode, Key, LockId, Result, Ttl};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::backoff::Backoff;
use crate::shared::Shared;

/// Releases by id when it is dropped, unless it is disarmed. One is enough for all attempts of a
/// waiter, because they share one id.
#[derive(Debug)]
pub(crate) struct Undo(Option<Unanswered>);

#[derive(Debug)]
struct Unanswered {
    shared: Arc<Shared>,
    home: Handle,
    key: Key,
    id: LockId,
    ttl: Ttl,
    /// Keeps shutdown waiting until the release is under way, or the guard is there.
    tracked: Option<TaskTrackerToken>,
}

/// How long an attempt is undone at most.
const LIMIT: Duration = Duration::from_secs(60);

/// How often the server is asked again if it knows nothing of the id: the request may be late.
const REPEATS: u32 = 4;

impl Undo {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        home: &Handle,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
    ) -> Self {
        Self(Some(Unanswered {
            shared: shared.clone(),
            home: home.clone(),
            key: key.clone(),
            id: id.clone(),
            ttl,
            tracked: Some(shared.background.token()),
        }))
    }

    /// For a guard, which shutdown does not wait for.
    pub(crate) fn untracked(mut self) -> Self {
        if let Some(unanswered) = &mut self.0 {
            unanswered.tracked = None;
        }
        self
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

/// Whether a request that failed like this has changed nothing.
pub(crate) const fn changed_nothing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::AuthFailed | ErrorCode::InvalidArgument)
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(Unanswered { shared, home, key, id, ttl, tracked }) = self.0.take() {
            let until = Instant::now() + ttl.as_duration().min(LIMIT);
            let background = shared.background.clone();
            let name = key.clone();
            background.release(&home, &name, until, move || {
                let (shared, key, id) = (shared.clone(), key.clone(), id.clone());
                async move {
                    let undone = release_by_id(&shared, &key, &id).await;
                    undone.map_err(|error| error.with_key(&key))
                }
            });
            drop(tracked);
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
        if shared.backend.release_by_id(id).await? {
            shared.queues.update(key, |queue| ((), queue.freed(None)));
        }
    }
    Ok(())
}

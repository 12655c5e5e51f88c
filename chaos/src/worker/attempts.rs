//! When each granted request was sent. The observer of the library tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use syncguard::{Event, Fingerprint, Operation, Outcome};

use crate::clock::Moment;

/// The newest attempts, by lock id and by key. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts(Arc<Mutex<HashMap<Fingerprint, Moment>>>);

/// Ids whose grant nobody received are forgotten sooner or later.
const MOST: usize = 10_000;

impl Attempts {
    /// Remembers an attempt that was granted.
    pub(crate) fn note(&self, event: &Event) {
        let granted = matches!(event.operation(), Operation::Acquire | Operation::Handoff)
            && event.outcome() == Outcome::Done;
        if granted {
            let sent = Moment::now().before(event.duration());
            let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if attempts.len() > MOST {
                attempts.clear();
            }
            attempts.extend(event.id().map(|id| (id, sent)));
            attempts.extend(event.key().map(|key| (key, sent)));
        }
    }

    /// When the attempt with this lock id, or the last one for this key, was sent.
    pub(crate) fn sent(&self, id_or_key: Fingerprint) -> Option<Moment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id_or_key).copied()
    }
}

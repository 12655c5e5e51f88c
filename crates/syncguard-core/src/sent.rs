//! Whether a request has left the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says whether a request has left the process, so that its caller knows what a cancellation costs.
///
/// A backend that may have to wait for a connection marks this immediately before it sends the
/// request. Until then, the lock manager drops the request together with its caller. Afterwards the
/// server may grant the key, so the manager lets the request finish and releases what it was granted.
///
/// A clone shares the mark.
///
/// # Examples
///
/// ```
/// use syncguard_core::Sent;
///
/// let sent = Sent::default();
/// let for_the_backend = sent.clone();
/// assert!(!sent.is_marked());
/// for_the_backend.mark();
/// assert!(sent.is_marked());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Sent {
    /// Says that the request is about to leave the process. The mark stays.
    pub fn mark(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns whether the request may have left the process.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

//! An interest in notifications, kept from one attempt to the next.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Resolves when a key may be free.
pub(crate) struct Notification(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Notification {
    pub(crate) fn new(notification: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(notification))
    }
}

impl Future for Notification {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notification").finish_non_exhaustive()
    }
}

//! A registration for notifications of one key, kept from one attempt to the next.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Resolves when the key may be free.
pub(crate) struct Subscription(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Subscription {
    pub(crate) fn new(notified: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(notified)))
    }
}

impl Future for Subscription {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Taken out, so that a future which panics is never polled again.
        let Some(mut notified) = self.0.take() else {
            return Poll::Pending;
        };
        let polled = notified.as_mut().poll(cx);
        self.0 = Some(notified);
        polled
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

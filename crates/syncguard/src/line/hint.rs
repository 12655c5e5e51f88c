//! An interest in hints, kept from one attempt to the next.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Resolves when a key may be free.
pub(crate) struct Hint(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Hint {
    pub(crate) fn new(hint: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(hint))
    }
}

impl Future for Hint {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hint").finish_non_exhaustive()
    }
}

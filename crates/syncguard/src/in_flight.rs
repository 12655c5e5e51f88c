//! A request to the backend that runs to its end once it was sent, even if its caller is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use syncguard_core::Sent;
use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::runtime::let_others_take_the_last_task;

/// A request that runs to its end once it was sent. If its caller drops this before, it goes on in a
/// task on `home`, and its outcome is dropped there: a guard then releases its lease, and an error
/// undoes what may have been granted (C1).
///
/// To stop a sent request halfway would be wrong. A release that is sent at once can overtake the
/// acquire on another connection, and the key is then granted to nobody.
///
/// A request that still waits for a connection is dropped with its caller. Otherwise such requests
/// would pile up while the server is away, and delay those of callers that are still there.
pub(crate) struct InFlight<'a, T: 'static> {
    request: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    sent: Sent,
    home: &'a Handle,
    /// Keeps shutdown waiting.
    tracked: TaskTrackerToken,
}

impl<'a, T> InFlight<'a, T> {
    pub(crate) fn new(
        home: &'a Handle,
        tracked: TaskTrackerToken,
        sent: Sent,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self { request: Some(Box::pin(request)), sent, home, tracked }
    }
}

impl<T> Future for InFlight<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that a request which panics is never polled again.
        let Some(mut request) = self.request.take() else {
            return Poll::Pending;
        };
        let polled = request.as_mut().poll(cx);
        if polled.is_pending() {
            self.request = Some(request);
        }
        polled
    }
}

impl<T> Drop for InFlight<'_, T> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take()
            && self.sent.is_marked()
        {
            let tracked = self.tracked.clone();
            // Nobody needs the handle of the task: shutdown waits for the token.
            drop(self.home.spawn(async move {
                drop(request.await);
                drop(tracked);
            }));
            let_others_take_the_last_task(self.home);
        }
    }
}

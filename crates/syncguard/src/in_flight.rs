//! Requests that run to their end, even if their callers go away.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Awaits `request`. If the caller is dropped before its end, the request goes on in a task on `home`,
/// and its outcome is dropped there: a guard then releases its lease, and an error undoes what may
/// have been granted (C1).
///
/// To stop a request halfway would be wrong. A release that is sent at once can overtake the acquire
/// on another connection, and the key is then granted to nobody.
pub(crate) async fn to_its_end<T: 'static>(
    home: &Handle,
    tracked: TaskTrackerToken,
    request: impl Future<Output = T> + Send + 'static,
) -> T {
    let request = Some(Box::pin(request) as Pin<Box<dyn Future<Output = T> + Send>>);
    let mut in_flight = InFlight { request, home, tracked };
    poll_fn(|cx| in_flight.poll(cx)).await
}

struct InFlight<'a, T: 'static> {
    request: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    home: &'a Handle,
    /// Keeps shutdown waiting.
    tracked: TaskTrackerToken,
}

impl<T> InFlight<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
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
        if let Some(request) = self.request.take() {
            let tracked = self.tracked.clone();
            // Nobody needs the handle of the task: shutdown waits for the token.
            drop(self.home.spawn(async move {
                drop(request.await);
                drop(tracked);
            }));
        }
    }
}

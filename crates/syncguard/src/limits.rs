//! Runs a future until the time limit, the caller's cancellation, or the shutdown of the manager.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use syncguard_core::{Error, ErrorCode, Key, Operation};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The limits of one wait.
#[derive(Debug)]
pub(crate) struct Limits {
    /// When the caller first polled the verb.
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// The caller's token, if it set one.
    pub(crate) cancel: Option<CancellationToken>,
}

/// Which limit ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    ShutDown,
    TimeUp,
}

impl Limits {
    /// Awaits `future` within the limits, and until `closing` is cancelled because the manager shuts
    /// down. A request that is cancelled beforehand sends nothing.
    ///
    /// The future is pinned by the caller, because one that is passed by value is stored twice.
    pub(crate) async fn bound<F: Future>(
        &self,
        closing: &CancellationToken,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Stop> {
        if let Some(stop) = self.reached(closing) {
            return Err(stop);
        }
        // A future that is ready at once costs no timer and no registration with the tokens.
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Ok(value);
        }
        let cancelled = async {
            match &self.cancel {
                Some(token) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancelled => Err(Stop::Cancelled),
            () = closing.cancelled() => Err(Stop::ShutDown),
            () = sleep_until(self.deadline) => Err(Stop::TimeUp),
            value = future => Ok(value),
        }
    }

    fn reached(&self, closing: &CancellationToken) -> Option<Stop> {
        if self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
            Some(Stop::Cancelled)
        } else if closing.is_cancelled() {
            Some(Stop::ShutDown)
        } else {
            None
        }
    }
}

impl Stop {
    /// The error for a caller whose single request for `key` had no answer when it was stopped.
    pub(crate) fn without_answer(self, operation: Operation, key: &Key) -> Error {
        let (code, message) = match self {
            Self::Cancelled => (ErrorCode::Aborted, "cancelled by the caller"),
            Self::ShutDown => (ErrorCode::Aborted, "the lock manager is shut down"),
            Self::TimeUp => (
                ErrorCode::NetworkTimeout,
                "no answer from the server within the wait limit: check that the server is up, or \
                 raise the limit",
            ),
        };
        Error::new(code, operation).with_key(key).with_message(message)
    }
}

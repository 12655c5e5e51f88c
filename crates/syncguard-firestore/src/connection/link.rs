//! One HTTP/2 connection, and the requests on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncguard_core::Result;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::connect::Api;
use crate::error::{Failure, keeps_connection};

/// One HTTP/2 connection, and whether it still answers.
pub(crate) struct Link {
    api: Api,
    /// Whether the runtime that drives it still runs.
    alive: Arc<AtomicBool>,
    /// How long it may stay silent while requests wait for an answer. `None` if it cannot be replaced.
    patience: Option<Duration>,
    condemned: watch::Sender<bool>,
    /// Since when requests wait without any answer on this connection.
    waiting_since: Mutex<Option<Instant>>,
}

impl Link {
    pub(super) fn new(api: Api, alive: Arc<AtomicBool>, patience: Option<Duration>) -> Self {
        let (condemned, waiting_since) = (watch::Sender::new(false), Mutex::default());
        Self { api, alive, patience, condemned, waiting_since }
    }

    pub(super) fn is_driven(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(super) fn is_usable(&self) -> bool {
        // The callers of those requests may have left before they could condemn it.
        let silent = (*self.waiting_since()).zip(self.patience);
        let silent = silent.is_some_and(|(since, patience)| since.elapsed() >= patience);
        self.is_driven() && !silent && !*self.condemned.borrow()
    }

    /// Sends no new request over this connection.
    pub(super) fn condemn(&self) {
        if self.patience.is_some() {
            self.condemned.send_replace(true);
        }
    }

    /// Resolves when no new request is sent over this connection.
    pub(crate) async fn condemned(&self) {
        // The sender is part of `self`, so this does not fail.
        let _ = self.condemned.subscribe().wait_for(|condemned| *condemned).await;
    }

    /// Begins a request that is given up at `deadline`.
    pub(crate) fn begin(self: &Arc<Self>, deadline: Instant) -> Exchange {
        self.waiting_since().get_or_insert_with(Instant::now);
        Exchange { link: self.clone(), deadline, ended: false }
    }

    fn heard(&self) {
        *self.waiting_since() = None;
    }

    fn waiting_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on a link. If it ends without an answer at its deadline, the link is condemned.
pub(crate) struct Exchange {
    link: Arc<Link>,
    deadline: Instant,
    ended: bool,
}

impl Exchange {
    /// Returns a client for the request.
    pub(crate) fn api(&self) -> Api {
        self.link.api.clone()
    }

    /// Waits for the answer. `None` if the server stays silent for so long that the request should be
    /// sent again, on a new connection.
    pub(crate) async fn answer<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        let Some(patience) = self.link.patience else { return self.all(answer).await };
        match timeout(patience, answer).await {
            Ok(answer) => self.end(answer).map(Some),
            Err(_) => {
                self.ended = true;
                self.link.condemn();
                Ok(None)
            }
        }
    }

    /// Waits for the answer for as long as the operation may take.
    pub(crate) async fn all<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<Option<T>, Failure> {
        let answer = answer.await;
        self.end(answer).map(Some)
    }

    fn end<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        self.ended = true;
        match &answer {
            Ok(_) => self.link.heard(),
            Err(Failure::Status(status)) if keeps_connection(status) => self.link.heard(),
            Err(_) => self.link.condemn(),
        }
        answer
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended && Instant::now() >= self.deadline {
            self.link.condemn();
        }
    }
}

//! The state of a connection, and the attempts to make it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::error::Error as RedisError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::established::Established;
use crate::connect::Connector;
use crate::error::Fault;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) connector: Connector,
    state: Mutex<State>,
    /// Wakes the callers that wait for the connection, and counts them.
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) established: Option<Arc<Established>>,
    /// When the attempt that is under way began.
    pub(super) connecting: Option<Instant>,
    /// Why the last attempt to connect failed.
    pub(super) failure: Option<RedisError>,
    /// The pause before the next attempt, after one that failed or did not last.
    pub(super) pause: Duration,
    pub(super) next_attempt: Instant,
}

impl Shared {
    pub(super) fn new(connector: Connector) -> Self {
        let state = State {
            established: None,
            connecting: None,
            failure: None,
            pause: Duration::ZERO,
            next_attempt: Instant::now(),
        };
        Self { connector, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while this mutex is held, so poisoning cannot occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the connection if it is up.
    pub(super) fn up(&self) -> Option<Arc<Established>> {
        self.established.as_ref().filter(|established| !established.task.has_ended()).cloned()
    }

    /// Forgets a connection that failed. The next attempt is made at once if the connection lasted.
    /// Otherwise a server that accepts connections and refuses commands would see a new one for
    /// each command.
    pub(super) fn retire(&mut self) {
        if let Some(failed) = self.established.take() {
            if failed.since.elapsed() >= LAST_PAUSE {
                self.pause = Duration::ZERO;
            }
            self.postpone();
        }
    }

    /// Sets the time of the next attempt, and doubles the pause.
    pub(super) fn postpone(&mut self) {
        self.next_attempt = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
    }
}

/// The attempts to connect, until one succeeds or nobody waits any more.
pub(super) struct Attempts(Arc<Shared>);

impl Attempts {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(shared.clone())
    }

    pub(super) async fn run(self) {
        let shared = &self.0;
        loop {
            let next_attempt = shared.state().next_attempt;
            sleep_until(next_attempt).await;
            shared.state().connecting = Some(Instant::now());
            match Established::new(&shared.connector).await {
                Ok(established) => {
                    let mut state = shared.state();
                    state.established = Some(Arc::new(established));
                    state.failure = None;
                    return;
                }
                Err(failure) => {
                    let mut state = shared.state();
                    let passes = Fault::of(&failure).code.is_transient();
                    state.failure = Some(failure);
                    state.postpone();
                    if !passes || shared.changed.receiver_count() == 0 {
                        return;
                    }
                }
            }
        }
    }
}

impl Drop for Attempts {
    /// Wakes the waiters: the attempts succeeded or failed, or their runtime is shutting down.
    fn drop(&mut self) {
        self.0.state().connecting = None;
        self.0.changed.send_replace(());
    }
}

/// The pause after the first attempt to connect that failed. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The limit to which pauses grow. A server that is back is noticed within this time.
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(1);

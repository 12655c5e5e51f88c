//! Opening connections, in tasks of their own.

use std::convert::Infallible;
use std::sync::Arc;

use syncguard_backend::spawn_stealable;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::shared::Shared;
use super::state::{Open, STALLED, Waiter};
use crate::connect::{self, Refusal};

/// Waits until a connection was opened, or given back.
pub(super) async fn wait_for_one(shared: &Arc<Shared>) -> Result<Open, Refusal> {
    let (delivery, delivered) = oneshot::channel();
    let mut delivered = Delivered { receiver: delivered, shared };
    let runtime = Handle::current().id();
    shared.state().wait(Waiter { delivery, runtime });
    loop {
        let look_again = open_what_is_missing(shared);
        tokio::select! {
            biased;
            delivered = &mut delivered.receiver => {
                // Nobody drops a waiter whose receiver is alive.
                return delivered.unwrap_or_else(|_| Err(Refusal::interrupted()));
            }
            () = sleep_until(look_again) => {}
        }
    }
}

/// Where the connection arrives. If the caller leaves and does not take it, it is left to others.
struct Delivered<'a> {
    receiver: oneshot::Receiver<Result<Open, Refusal>>,
    shared: &'a Arc<Shared>,
}

impl Drop for Delivered<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(open)) = self.receiver.try_recv() {
            self.shared.give_back(open);
        }
    }
}

/// Opens as many connections as are waited for and not being opened yet. Returns when to look again.
fn open_what_is_missing(shared: &Arc<Shared>) -> Instant {
    let now = Instant::now();
    let attempts: Vec<_> = {
        let mut state = shared.state();
        if let Some(retry_at) = state.retry_at() {
            return retry_at;
        }
        let (missing, generation) = (state.missing(shared.max), state.generation);
        let attempt = |_| {
            let (number, given_up) = state.opening(now);
            Attempt {
                shared: shared.clone(),
                number,
                since: now,
                generation,
                given_up,
                ended: false,
            }
        };
        (0..missing).map(attempt).collect()
    };
    // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
    for attempt in attempts {
        drop(spawn_stealable(&Handle::current(), attempt.run()));
    }
    now + STALLED
}

/// One attempt to open a connection.
struct Attempt {
    shared: Arc<Shared>,
    number: u64,
    since: Instant,
    generation: u64,
    /// Closed when nobody needs it any more.
    given_up: oneshot::Receiver<Infallible>,
    ended: bool,
}

impl Attempt {
    async fn run(mut self) {
        let options = connect::options_of(&self.shared.pool);
        let opened = tokio::select! {
            biased;
            _ = &mut self.given_up => return,
            opened = timeout(self.shared.limit, connect::open(&options)) => opened,
        };
        let opened = opened.unwrap_or_else(|_| Err(Refusal::timed_out(&options)));
        self.ended = true;
        let mut state = self.shared.state();
        state.opening_ended(self.number);
        match opened {
            Ok(connection) => {
                state.opened(self.since);
                let open = state.open(connection, Handle::current().id(), self.generation);
                drop(state);
                self.shared.give_back(open);
                // Others may have waited for the outcome of this one.
                open_what_is_missing(&self.shared);
            }
            Err(refusal) => state.refused(refusal),
        }
    }
}

impl Drop for Attempt {
    /// The runtime may end in the middle of it.
    fn drop(&mut self) {
        if !self.ended {
            self.shared.state().opening_ended(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_runtime_that_has_ended_opens_nothing_and_blocks_nobody() {
        let (done, finished) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let shared = runtime.block_on(async {
                let pool = PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new());
                Arc::new(Shared::new(pool, 4, Duration::from_secs(1)))
            });
            let handle = runtime.handle().clone();
            drop(runtime);
            let _ended = handle.enter();
            let (delivery, _delivered) = oneshot::channel();
            shared.state().wait(Waiter { delivery, runtime: handle.id() });
            open_what_is_missing(&shared);
            done.send(shared.state().is_opening()).unwrap();
        });
        assert_eq!(finished.recv_timeout(Duration::from_secs(30)), Ok(false));
    }
}

//! Opening connections, in tasks of their own.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::shared::Shared;
use super::state::{Open, STALLED, Waiter};
use crate::connect::{self, Refusal};

/// Waits until a connection was opened, or given back.
pub(super) async fn wait_for_one(shared: &Arc<Shared>) -> Result<Open, Refusal> {
    let (delivery, mut delivered) = oneshot::channel();
    let runtime = Handle::current().id();
    shared.state().wait(Waiter { delivery, runtime });
    loop {
        let look_again = open_what_is_missing(shared);
        tokio::select! {
            biased;
            delivered = &mut delivered => {
                // Nobody drops a waiter whose receiver is alive.
                return delivered.unwrap_or_else(|_| Err(Refusal::interrupted()));
            }
            () = sleep_until(look_again) => {}
        }
    }
}

/// Opens as many connections as are waited for and not being opened yet. Returns when to look again.
fn open_what_is_missing(shared: &Arc<Shared>) -> Instant {
    let mut state = shared.state();
    let now = Instant::now();
    if let Some(retry_at) = state.retry_at() {
        return retry_at;
    }
    for _ in 0..state.missing(shared.max) {
        let generation = state.generation;
        let attempt = Attempt { shared: shared.clone(), since: now, generation, ended: false };
        // It cannot end before it is recorded, because the state is locked.
        state.opening(now, tokio::spawn(attempt.run()).abort_handle());
    }
    now + STALLED
}

/// One attempt to open a connection.
struct Attempt {
    shared: Arc<Shared>,
    since: Instant,
    generation: u64,
    ended: bool,
}

impl Attempt {
    async fn run(mut self) {
        let options = connect::options_of(&self.shared.pool);
        let opened = match timeout(self.shared.limit, connect::open(&options)).await {
            Ok(opened) => opened,
            Err(_) => Err(Refusal::timed_out(&options)),
        };
        self.ended = true;
        let mut state = self.shared.state();
        state.opening_ended(self.since);
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
            self.shared.state().opening_ended(self.since);
        }
    }
}

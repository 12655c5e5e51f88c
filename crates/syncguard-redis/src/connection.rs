//! What commands go through: connections that are made when needed and replaced when they fail.

mod established;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fred::error::{Error as RedisError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};
use syncguard_backend::spawn_stealable;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

pub(crate) use self::established::Established;
use self::shared::{Attempts, LAST_PAUSE, Shared};
use crate::connect::Connector;
use crate::error::{Fault, NO_RUNTIME};

/// The connections of a backend. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    all: Arc<[Connection]>,
    next: Arc<AtomicUsize>,
}

impl Connections {
    /// Connects with each of these when it is needed. There is at least one.
    pub(crate) fn new(connectors: impl IntoIterator<Item = Connector>) -> Self {
        let all = connectors.into_iter().map(Connection::new).collect();
        Self { all, next: Arc::default() }
    }

    /// Returns the connection for the next command: the next one that is up, or the next one.
    pub(crate) fn next(&self) -> &Connection {
        if let [one] = &*self.all {
            return one;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.all.split_at(next % self.all.len());
        let mut in_turn = after.iter().chain(before);
        in_turn.clone().find(|one| one.is_up()).or_else(|| in_turn.next()).unwrap_or(&self.all[0])
    }

    /// Why no connection was up in time, if none is, and which one says so.
    pub(crate) fn none_in_time(&self) -> Option<(&Connection, RedisError)> {
        if self.all.iter().any(Connection::is_up) {
            return None;
        }
        // Not all were tried.
        let failed = self.all.iter().find(|one| one.0.state().failure.is_some());
        let one = failed.unwrap_or(&self.all[0]);
        Some((one, one.none_in_time()))
    }
}

/// A connection that is made when a command needs it, and made again after it failed. Clones share
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Shared>);

impl Connection {
    fn new(connector: Connector) -> Self {
        Self(Arc::new(Shared::new(connector)))
    }

    /// How the connection is made.
    pub(crate) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    fn is_up(&self) -> bool {
        self.up().is_some()
    }

    /// Returns the connection if it is up.
    pub(crate) fn up(&self) -> Option<Arc<Established>> {
        self.0.state().up()
    }

    /// Waits until the connection is up, at most for the time limit. Fails earlier if the server
    /// refuses for a reason that does not pass.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point. An attempt that is under way goes on, for the next
    /// caller, and no further one is made while nobody waits.
    pub(crate) async fn established(&self) -> Result<Arc<Established>, RedisError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(RedisError::new(ErrorKind::Config, NO_RUNTIME));
        };
        if let Some(established) = self.0.state().up() {
            return Ok(established);
        }
        let in_time = timeout(self.0.connector.limit(), self.wait(&runtime)).await;
        in_time.unwrap_or_else(|_| Err(self.none_in_time()))
    }

    /// Why there was no connection in time.
    fn none_in_time(&self) -> RedisError {
        let failure = self.0.state().failure.clone();
        failure.unwrap_or_else(|| {
            RedisError::new(ErrorKind::Timeout, "The server accepted no connection in time.")
        })
    }

    async fn wait(&self, runtime: &Handle) -> Result<Arc<Established>, RedisError> {
        let mut changes = self.0.changed.subscribe();
        loop {
            if let Some(outcome) = self.outcome(runtime) {
                return outcome;
            }
            // It fails only if the sender is gone, which `self` keeps.
            let _ = changes.changed().await;
        }
    }

    /// Returns what a waiter waits for, if it is known. Otherwise an attempt to connect is under way.
    fn outcome(&self, runtime: &Handle) -> Option<Result<Arc<Established>, RedisError>> {
        let now = Instant::now();
        {
            let mut state = self.0.state();
            if let Some(established) = state.up() {
                return Some(Ok(established));
            }
            // An attempt may be on a runtime that nobody drives any more, such as that of a test.
            let longest = self.0.connector.limit() * 2 + LAST_PAUSE;
            if state.connecting.is_some_and(|since| now <= since + longest) {
                return None;
            }
            if let Some(failure) = &state.failure
                && !Fault::of(failure).code.is_transient()
                && now < state.next_attempt
            {
                return Some(Err(failure.clone()));
            }
            state.retire();
            state.connecting = Some(now);
        }
        // Not under the lock: a runtime that shuts down drops the task at once.
        drop(spawn_stealable(runtime, Attempts::new(&self.0).run()));
        None
    }

    /// Closes a connection that failed a command in this way, so that the next command gets a new
    /// one. A connection that was replaced already stays replaced.
    pub(crate) fn condemn(&self, failed: &Arc<Established>, kind: &ErrorKind) {
        if *kind == ErrorKind::Timeout {
            failed.silent.store(true, Ordering::Relaxed);
        }
        failed.task.end();
        let mut state = self.0.state();
        if state.established.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            state.retire();
        }
    }

    /// Sends a `PING`, and condemns the connection if no answer comes in time. One at a time.
    fn prove(&self, established: &Arc<Established>) {
        if established.proving.swap(true, Ordering::Relaxed) {
            return;
        }
        let (connection, established) = (self.clone(), established.clone());
        drop(spawn_stealable(&established.runtime.clone(), async move {
            let options = Options {
                timeout: Some(connection.connector().limit()),
                max_attempts: Some(1),
                ..Options::default()
            };
            let command = CustomCommand::new_static("PING", ClusterHash::FirstKey, false);
            let client = established.client.with_options(&options);
            let answer = client.custom::<Value, Value>(command, Vec::new()).await;
            established.proving.store(false, Ordering::Relaxed);
            // A refusal is an answer as well.
            let broken = [ErrorKind::Timeout, ErrorKind::IO, ErrorKind::Canceled];
            if let Err(error) = answer
                && broken.contains(error.kind())
            {
                connection.condemn(&established, error.kind());
            }
        }));
    }
}

/// A command on its way. Dropping it before its answer was heard has the connection proved: the
/// caller that left cannot notice that no answer comes.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    connection: &'a Connection,
    established: &'a Arc<Established>,
    heard: bool,
}

impl<'a> InFlight<'a> {
    /// A command that is about to be sent.
    pub(crate) fn new(connection: &'a Connection, established: &'a Arc<Established>) -> Self {
        Self { connection, established, heard: false }
    }

    /// The command has come to an end, and its caller has the outcome.
    pub(crate) fn heard(mut self) {
        self.heard = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.heard {
            self.connection.prove(self.established);
        }
    }
}

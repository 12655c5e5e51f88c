//! The connection that all requests go through, and when it is replaced.

mod home;
mod link;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gcloud_sdk::GoogleAuthHeaders;
use syncguard_backend::spawn_stealable;
use syncguard_core::{ErrorCode, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connect::{Api, Connector};
use crate::error::failure;

use home::Home;
pub(crate) use link::{Exchange, Link};

/// The connection to Firestore. Clones share it.
///
/// One task at a time connects, for all operations that need it, so operations whose callers leave
/// early do not start the connection over again.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    source: Source,
    state: Mutex<State>,
}

/// Where links come from.
enum Source {
    Connector(Box<Connector>),
    /// A client of the caller, whose connection cannot be made again here.
    Client(Arc<Link>),
}

#[derive(Default)]
struct State {
    /// The runtime that drives the link.
    home: Option<Home>,
    /// The credentials, which refresh their token in the home runtime.
    credentials: Option<Arc<GoogleAuthHeaders>>,
    phase: Phase,
    /// Counts the attempts to connect, so that one that is given up changes nothing.
    attempt: u64,
}

#[derive(Default)]
enum Phase {
    #[default]
    Down,
    Connecting {
        since: Instant,
        outcome: watch::Receiver<Outcome>,
    },
    Up(Arc<Link>),
}

type Outcome = Option<Result<Arc<Link>>>;

impl Connection {
    pub(crate) fn new(connector: Connector) -> Self {
        Self::from_source(Source::Connector(Box::new(connector)))
    }

    /// Takes a client of the caller.
    pub(crate) fn of_client(api: Api) -> Self {
        let home = Home::here();
        let alive = home.as_ref().map_or_else(|| Arc::new(AtomicBool::new(true)), Home::alive);
        let link = Link::new(api, alive, None);
        let connection = Self::from_source(Source::Client(Arc::new(link)));
        connection.state().home = home;
        connection
    }

    fn from_source(source: Source) -> Self {
        Self(Arc::new(Shared { source, state: Mutex::default() }))
    }

    /// Returns whether the server is an emulator. That of a client of the caller is not known.
    pub(crate) fn is_emulator(&self) -> bool {
        matches!(&self.0.source, Source::Connector(connector) if connector.is_emulator())
    }

    /// Returns the link to send a request on. Connects first if there is none that can be used.
    ///
    /// # Cancel safety
    ///
    /// Nothing is sent. Connecting goes on for the next caller, within the command timeout.
    pub(crate) async fn link(&self) -> Result<Arc<Link>> {
        loop {
            let mut outcome = match self.current()? {
                Ok(link) => return Ok(link),
                Err(outcome) => outcome,
            };
            let outcome =
                outcome.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone());
            match outcome {
                Some(connected) => return connected,
                // The runtime in which the task ran has ended. The next task runs in this one.
                None => self.state().home = None,
            }
        }
    }

    /// Returns the link if it can be used, else the task that connects.
    fn current(&self) -> Result<Result<Arc<Link>, watch::Receiver<Outcome>>> {
        let connector = match &self.0.source {
            Source::Connector(connector) => connector,
            Source::Client(link) if link.is_driven() => return Ok(Ok(link.clone())),
            Source::Client(_) => {
                return Err(failure(ErrorCode::InvalidArgument).with_message(
                    "the tokio runtime of the client that was passed to build has ended: make the \
                     backend in the runtime that uses it, or use connect, which connects again",
                ));
            }
        };
        let mut state = self.state();
        let stalled = match &state.phase {
            Phase::Up(link) if link.is_usable() => return Ok(Ok(link.clone())),
            Phase::Up(link) => {
                link.condemn();
                false
            }
            Phase::Connecting { since, outcome } if outcome.has_changed().is_ok() => {
                if since.elapsed() <= 2 * connector.limit() {
                    return Ok(Err(outcome.clone()));
                }
                // The task limits its time, so nobody drives its runtime.
                true
            }
            Phase::Connecting { .. } | Phase::Down => false,
        };
        if stalled || !state.home.as_ref().is_some_and(Home::is_alive) {
            state.home = Home::here();
            // They may wait for a token that nobody refreshes any more.
            state.credentials = None;
        }
        let Some(home) = &state.home else {
            return Err(failure(ErrorCode::InvalidArgument)
                .with_message("there is no tokio runtime here: call this inside one"));
        };
        let (handle, alive) = (home.handle.clone(), home.alive());
        let known = state.credentials.clone();
        state.attempt += 1;
        let attempt = state.attempt;
        let (sender, outcome) = watch::channel(None);
        state.phase = Phase::Connecting { since: Instant::now(), outcome: outcome.clone() };
        drop(state);
        drop(spawn_stealable(&handle, self.clone().connect(attempt, known, alive, sender)));
        Ok(Err(outcome))
    }

    async fn connect(
        self,
        attempt: u64,
        known: Option<Arc<GoogleAuthHeaders>>,
        alive: Arc<AtomicBool>,
        outcome: watch::Sender<Outcome>,
    ) {
        let Source::Connector(connector) = &self.0.source else { return };
        let connected = connector.connect(known).await;
        let mut state = self.state();
        if state.attempt == attempt
            && let Ok((_, credentials)) = &connected
        {
            state.credentials = Some(credentials.clone());
        }
        let patience = Some(connector.limit() / 2);
        let connected = connected.map(|(api, _)| Arc::new(Link::new(api, alive, patience)));
        if state.attempt == attempt {
            state.phase = match &connected {
                Ok(link) => Phase::Up(link.clone()),
                Err(_) => Phase::Down,
            };
        }
        drop(state);
        outcome.send_replace(Some(connected));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while the mutex is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! A TCP forwarder between a backend and its server, for trials of a bad network.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Forwards connections to a server. Dropping it closes them all.
///
/// The operating system acknowledges whatever a client sends, also if the forwarder drops it. So a
/// client sees a silent connection, not a broken one.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    state: Arc<Mutex<State>>,
    stopped: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// The `host:port` that new connections go to.
    server: String,
    /// How the connections that are made now behave. Those made before keep theirs.
    link: Link,
    /// New connections are silent, as those made before.
    all_silent: Option<Silence>,
    /// What fell silent and was not closed since.
    silenced: Vec<Link>,
    delay: Duration,
    /// Connections made since the forwarder started.
    accepted: usize,
    /// Connections that the client has not closed.
    open: usize,
}

/// What a silent connection drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a connection has two directions")]
pub enum Silence {
    /// All that is sent.
    Both,
    /// What the client sends.
    Requests,
    /// What the server sends.
    Replies,
}

/// What connections that were made in the same period share.
#[derive(Clone, Debug, Default)]
struct Link {
    requests_dropped: Arc<AtomicBool>,
    replies_dropped: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl Forwarder {
    /// Starts to forward connections to the server at `host:port`.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn to(server: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = State {
            server: server.into(),
            link: Link::default(),
            all_silent: None,
            silenced: Vec::new(),
            delay: Duration::ZERO,
            accepted: 0,
            open: 0,
        };
        let (state, stopped) = (Arc::new(Mutex::new(state)), CancellationToken::new());
        tokio::spawn(stopped.clone().run_until_cancelled_owned(accept(listener, state.clone())));
        Ok(Self { port, state, stopped })
    }

    /// The port on 127.0.0.1 that clients connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were made.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.update(|state| state.accepted)
    }

    /// How many connections clients have not closed, silent ones included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.update(|state| state.open)
    }

    /// Drops whatever is sent over the connections that are open now. New ones work.
    pub fn silence_open(&self) {
        self.update(|state| {
            state.link.silence(Silence::Both);
            state.replace_link();
        });
    }

    /// Drops whatever is sent, over open and over new connections, until [`restore`](Self::restore).
    pub fn silence_all(&self) {
        self.silence(Silence::Both);
    }

    /// As [`silence_all`](Self::silence_all), also for one direction alone.
    pub fn silence(&self, silence: Silence) {
        self.update(|state| {
            state.link.silence(silence);
            state.all_silent = Some(silence);
        });
    }

    /// Lets new connections work again. Those that were silenced stay silent.
    pub fn restore(&self) {
        self.update(|state| {
            if state.all_silent.take().is_some() {
                state.replace_link();
            }
        });
    }

    /// Closes the connections that were silenced, as a network does that works again and finds one
    /// end closed.
    pub fn close_silenced(&self) {
        self.update(|state| state.silenced.drain(..).for_each(|link| link.cut.cancel()));
    }

    /// Closes the open connections. New ones work.
    pub fn cut(&self) {
        self.update(|state| {
            state.link.cut.cancel();
            state.link = Link::default();
        });
    }

    /// Sends new connections to another server. Open ones stay where they are.
    pub fn switch_to(&self, server: impl Into<String>) {
        self.update(|state| state.server = server.into());
    }

    /// Delays each direction of all connections by this time.
    pub fn delay(&self, delay: Duration) {
        self.update(|state| state.delay = delay);
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl State {
    /// Connections made from now on behave as they should. The others are remembered as silent.
    fn replace_link(&mut self) {
        let link = std::mem::take(&mut self.link);
        self.silenced.push(link);
    }
}

impl Link {
    fn silence(&self, silence: Silence) {
        if silence != Silence::Replies {
            self.requests_dropped.store(true, Ordering::Release);
        }
        if silence != Silence::Requests {
            self.replies_dropped.store(true, Ordering::Release);
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    // Dropped with this future, so that all connections close when the forwarder stops.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, link) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.accepted += 1;
            state.open += 1;
            if let Some(silence) = state.all_silent {
                state.link.silence(silence);
            }
            (state.server.clone(), state.link.clone())
        };
        let (state, cut) = (state.clone(), link.cut.clone());
        let open = OpenClient(state.clone());
        connections.spawn(cut.run_until_cancelled_owned(async move {
            let Ok(server) = TcpStream::connect(&server).await else {
                return;
            };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                () = copy(from_client, to_server, &link.requests_dropped, &state, Some(open)) => {}
                () = copy(from_server, to_client, &link.replies_dropped, &state, None) => {}
            }
        }));
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a connection as open until the client closes it, or the forwarder does.
struct OpenClient(Arc<Mutex<State>>);

impl Drop for OpenClient {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open -= 1;
    }
}

/// Forwards one direction until it ends. A silent connection never ends by itself.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    dropped: &AtomicBool,
    state: &Mutex<State>,
    open: Option<OpenClient>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        if dropped.load(Ordering::Acquire) {
            continue;
        }
        let delay = state.lock().unwrap_or_else(PoisonError::into_inner).delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if !dropped.load(Ordering::Acquire) && to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    drop(open);
    if dropped.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

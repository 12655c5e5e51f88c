//! A forwarder that delays what it forwards, as a network does.

use std::time::Duration;

use syncguard_bench::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// Forwards connections to a server. Each direction takes the delay, whatever else is on its way.
pub(crate) struct Delay {
    port: u16,
    task: AbortHandle,
}

impl Delay {
    /// Listens on a free port of this machine.
    pub(crate) async fn to(server: String, delay: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                drop((client.set_nodelay(true), server.set_nodelay(true)));
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(forward(from_client, to_server, delay));
                tokio::spawn(forward(from_server, to_client, delay));
            }
        });
        Ok(Self { port, task: task.abort_handle() })
    }

    /// The same URL, through this forwarder.
    pub(crate) fn url(&self, url: &str) -> Outcome<String> {
        let server = host_and_port(url)?;
        Ok(url.replacen(server, &format!("127.0.0.1:{}", self.port), 1))
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The part of a URL that names the server. It must have a port.
pub(crate) fn host_and_port(url: &str) -> Outcome<&str> {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next());
    let server = authority.and_then(|authority| authority.rsplit('@').next());
    server.filter(|server| server.contains(':')).ok_or_else(|| "a URL needs a port".into())
}

/// Forwards one direction until an end closes.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (late, mut due) = unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if late.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

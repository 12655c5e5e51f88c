//! Counts the requests of clients to an emulator, which does not count them itself.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use syncguard_bench::{Outcome, RequestCount};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy that counts requests. It slows clients down, so times must be measured without it.
pub(crate) struct Requests {
    url: String,
    count: Arc<AtomicU32>,
}

impl Requests {
    /// Starts the proxy in front of the emulator at this URL.
    pub(crate) async fn listen(emulator: &str) -> Outcome<Self> {
        let emulator = emulator.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let count = Arc::new(AtomicU32::new(0));
        let requests = Self { url, count: count.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (emulator, count) = (emulator.clone(), count.clone());
                // If this fails, the client notices that its connection has ended.
                tokio::spawn(async move { pass(client, &emulator, &count).await });
            }
        });
        Ok(requests)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of requests so far.
    pub(crate) fn count(&self) -> f64 {
        self.count.load(Ordering::Relaxed).into()
    }
}

async fn pass(client: TcpStream, emulator: &str, count: &AtomicU32) -> io::Result<()> {
    let server = TcpStream::connect(emulator).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let (mut sent, mut buffer) = (RequestCount::new(), [0; 4096]);
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return to_server.shutdown().await;
            }
            count.fetch_add(sent.requests(&buffer[..length]), Ordering::Relaxed);
            to_server.write_all(&buffer[..length]).await?;
        }
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::try_join!(there, back)?;
    Ok(())
}

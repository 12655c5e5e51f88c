//! A connection that was made.

use std::sync::atomic::{AtomicBool, Ordering};

use fred::clients::Client;
use fred::error::Error as RedisError;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::connect::{Connector, Task};

/// One connection, which is up or was.
#[derive(Debug)]
pub(crate) struct Established {
    pub(super) client: Client,
    pub(super) task: Task,
    /// The runtime that drives the connection.
    pub(super) runtime: Handle,
    pub(super) since: Instant,
    /// A `PING` is under way.
    pub(super) proving: AtomicBool,
    /// A command had no answer in time, so the connection was closed.
    pub(super) silent: AtomicBool,
}

impl Established {
    pub(super) async fn new(connector: &Connector) -> Result<Self, RedisError> {
        let client = connector.client()?;
        let task = connector.open(&client).await?;
        Ok(Self {
            client,
            task,
            runtime: Handle::current(),
            since: Instant::now(),
            proving: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        })
    }

    /// Whether the connection was closed because a command had no answer in time. Then the other
    /// commands in flight had none either.
    pub(crate) fn was_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// The client to send commands with.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

//! What the commands of locks go through, and how a connection of our own is made and ended.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::error::{Error as RedisError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::ConnectHandle;
use fred::types::config::ConnectionConfig;

/// What a backend sends its commands through: a fred `Client`, or a `Pool` of them.
#[derive(Clone, Debug)]
pub struct Connection(Clients);

#[derive(Clone, Debug)]
enum Clients {
    One(Client),
    Owned(Client, #[expect(dead_code, reason = "it ends with the last clone")] Arc<Task>),
    Pool(Pool),
}

impl Connection {
    /// A connection that is ours to end.
    pub(crate) fn owned(client: Client, task: Task) -> Self {
        Self(Clients::Owned(client, Arc::new(task)))
    }

    /// The client for the next command.
    pub(crate) fn next(&self) -> &Client {
        match &self.0 {
            Clients::One(client) | Clients::Owned(client, _) => client,
            Clients::Pool(pool) => pool.next_connected(),
        }
    }
}

impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self(Clients::One(client))
    }
}

impl From<Pool> for Connection {
    fn from(pool: Pool) -> Self {
        Self(Clients::Pool(pool))
    }
}

/// Bounds what a client does to connect, and lets it send each command once.
pub(crate) fn limit(connection: &mut ConnectionConfig, limit: Duration) {
    connection.connection_timeout = limit;
    connection.internal_command_timeout = limit;
    connection.max_command_attempts = 1;
}

/// Connects a client, in at most twice the limit.
pub(crate) async fn open(client: &Client, limit: Duration) -> Result<Task, RedisError> {
    // `biased`: the outcome is listened for before the connection is made.
    let (connected, task) = tokio::join!(
        biased;
        tokio::time::timeout(limit * 2, client.wait_for_connect()),
        async { Task(client.connect()) },
    );
    let in_time = connected
        .unwrap_or_else(|_| Err(RedisError::new(ErrorKind::Timeout, "No connection in time.")));
    in_time.map(|()| task)
}

/// The task of a connection that is ours. It would go on after the last client is gone.
#[derive(Debug)]
pub(crate) struct Task(ConnectHandle);

impl Task {
    /// Resolves when the client has given up.
    pub(crate) async fn ended(&mut self) {
        // However it ended.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

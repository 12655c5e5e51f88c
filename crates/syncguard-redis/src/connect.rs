//! How a connection is made: from a URL, or with the configuration of a caller's client.

use std::fmt;
use std::time::Duration;

use fred::clients::{Client, Pool};
use fred::error::{Error as RedisError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{Config, Server, ServerConfig};
use fred::types::{Builder, ConnectHandle};
use syncguard_core::{Error, Operation};

use crate::error::{self, Fault};
use crate::tls;

/// Configures the connections of a backend: made from a fred `Client` or `Pool`.
///
/// The backend makes connections of its own with this configuration, one for a `Client`, as many as
/// its size for a `Pool`. Blocking commands and long pipelines on your client therefore never delay
/// the renewal of a lease, and the backend can replace a connection that no longer answers.
#[derive(Clone)]
pub struct Connection(Vec<Client>);

impl Connection {
    /// Returns the clients, of which there is at least one.
    pub(crate) fn clients(&self) -> &[Client] {
        &self.0
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("clients", &self.0.len()).finish()
    }
}

impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self(vec![client])
    }
}

impl From<Pool> for Connection {
    fn from(pool: Pool) -> Self {
        Self(pool.clients().to_vec())
    }
}

/// Makes connections, all with the same configuration.
#[derive(Clone)]
pub(crate) struct Connector {
    builder: Builder,
    limit: Duration,
    clustered: bool,
    uses_tls: bool,
    /// The servers and the database, for errors.
    target: String,
}

impl Connector {
    /// Makes connections with this configuration. Each step of a connection attempt, and each
    /// command on the connection, is limited to this time.
    pub(crate) fn new(mut config: Config, limit: Duration) -> Self {
        // fred makes one attempt, and leaves all further ones to us.
        config.fail_fast = true;
        let (clustered, uses_tls) = (config.server.is_clustered(), tls::is_enabled(&config));
        let target = target(&config);
        let mut builder = Builder::from_config(config);
        builder
            .with_connection_config(|connection| {
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| performance.default_command_timeout = limit);
        Self { builder, limit, clustered, uses_tls, target }.limited()
    }

    /// Makes connections with the configuration of a caller's client.
    pub(crate) fn like(client: &Client, limit: Duration) -> Self {
        let mut connector = Self::new(client.client_config(), limit);
        let performance = client.perf_config();
        connector
            .builder
            .set_connection_config(client.connection_config().clone())
            .with_performance_config(|own| {
                *own = performance;
                own.default_command_timeout = limit;
            });
        connector.limited()
    }

    /// Limits every step of a connection attempt. fred sends each command once, and judges no
    /// connection: it would ask only whether something was written, not whether something came back.
    fn limited(mut self) -> Self {
        let limit = self.limit;
        self.builder.with_connection_config(|connection| {
            connection.connection_timeout = limit;
            connection.internal_command_timeout = limit;
            connection.max_command_attempts = 1;
            connection.unresponsive.max_timeout = None;
        });
        self
    }

    /// Changes the size of the buffer for messages.
    pub(crate) fn with_messages(mut self, messages: usize) -> Self {
        self.builder.with_performance_config(|performance| {
            performance.broadcast_channel_capacity = messages;
        });
        self
    }

    /// The time limit of each step of a connection attempt, and of each command.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether the server is a cluster.
    pub(crate) fn is_clustered(&self) -> bool {
        self.clustered
    }

    /// Makes a client that is not connected yet.
    pub(crate) fn client(&self) -> Result<Client, RedisError> {
        self.builder.build()
    }

    /// Connects a client, in at most twice the limit.
    pub(crate) async fn open(&self, client: &Client) -> Result<Task, RedisError> {
        // `biased`: the outcome is listened for before the connection is made.
        let (connected, task) = tokio::join!(
            biased;
            tokio::time::timeout(self.limit * 2, client.wait_for_connect()),
            async { Task(client.connect()) },
        );
        let in_time = connected
            .unwrap_or_else(|_| Err(RedisError::new(ErrorKind::Timeout, "No connection in time.")));
        in_time.map(|()| task)
    }

    /// The error of an attempt to connect, which names the servers.
    pub(crate) fn error(&self, cause: RedisError, operation: Operation) -> Error {
        let Fault { code, message, .. } = Fault::of(&cause);
        let target = &self.target;
        let message = match error::detail(&cause) {
            _ if *cause.kind() == ErrorKind::Timeout && self.uses_tls => {
                format!("no connection to {target}: no answer in time, check that it speaks TLS")
            }
            _ if *cause.kind() == ErrorKind::Timeout => {
                format!("no connection to {target}: no answer in time, check that it is up")
            }
            Some(detail) => format!("no connection to {target}: {message} ({detail})"),
            None => format!("no connection to {target}: {message}"),
        };
        Error::new(code, operation).with_message(message).with_source(error::redacted(cause, &[]))
    }
}

impl fmt::Debug for Connector {
    /// Leaves out the configuration, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Names the servers and the database, without the credentials.
fn target(config: &Config) -> String {
    let list = |servers: &[Server]| {
        let names: Vec<_> = servers.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let servers = match &config.server {
        ServerConfig::Centralized { server } => format!("Redis at {server}"),
        ServerConfig::Clustered { hosts, .. } => {
            format!("the Redis Cluster at {}", list(hosts))
        }
        ServerConfig::Sentinel { hosts, service_name, .. } => {
            format!("the master {service_name:?} through Sentinel at {}", list(hosts))
        }
        // A variant for Unix sockets exists only with a feature of fred.
        #[allow(unreachable_patterns, reason = "all others, in any set of features")]
        other => match other.hosts().first() {
            Some(server) => format!("Redis at {}", server.host),
            None => "Redis".to_owned(),
        },
    };
    match config.database {
        Some(database) => format!("{servers}, database {database}"),
        None => servers,
    }
}

/// The task of a connection. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Task(ConnectHandle);

impl Task {
    /// Resolves when the connection has ended.
    pub(crate) async fn ended(&mut self) {
        // The outcome does not matter: fred gives the reason to the commands in flight.
        let _ = (&mut self.0).await;
    }

    /// Whether the connection has ended, or the runtime that drove it.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Closes the connection.
    pub(crate) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}

//! How a backend is built: its options, and what they mean for the connection it works on.

use std::time::Duration;

use fred::types::config::Options;
use syncguard_backend::GroupCommit;
use syncguard_core::{Error, ErrorCode, Operation, Result};

use crate::backend::RedisBackend;
use crate::connect::{Connection, Connector};
use crate::connection::Connections;
use crate::groups::{self, Groups};
use crate::names::Names;
use crate::notifications::Notifications;
use crate::operations::FIRST_KEY;
use crate::url;

/// How often a command follows where the nodes of a cluster send it: as by fred's default.
const REDIRECTIONS: u32 = 5;

/// The longest command timeout. No lease of a usual TTL outlives it, and no time computed from it
/// overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Options of a [`RedisBackend`], ended by [`connect`](Self::connect) or [`build`](Self::build).
///
/// # Default
///
/// - key prefix: `syncguard`
/// - command timeout: 3 seconds
/// - notifications: yes
/// - concurrent operations share calls, at most 8 at a time with 32 operations each
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `connect` or `build`"]
pub struct RedisBackendBuilder {
    key_prefix: String,
    command_timeout: Duration,
    notifications: bool,
    group_commit: Option<GroupCommit>,
}

impl Default for RedisBackendBuilder {
    fn default() -> Self {
        Self {
            key_prefix: "syncguard".to_owned(),
            command_timeout: Duration::from_secs(3),
            notifications: true,
            group_commit: Some(groups::DEFAULT),
        }
    }
}

impl RedisBackend {
    /// Connects to a server by its URL, with the default options: see
    /// [`RedisBackendBuilder::connect`].
    ///
    /// # Errors
    ///
    /// As [`RedisBackendBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`RedisBackendBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder().connect(url).await
    }

    /// A backend on your own fred `Client` or `Pool`, with the default options: see
    /// [`RedisBackendBuilder::build`].
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorCode::InvalidArgument) for a client of a cluster: the default key
    /// prefix has no hash tag.
    pub fn new(client: impl Into<Connection>) -> Result<Self> {
        Self::builder().build(client)
    }

    /// A builder, for other options than the default ones.
    pub fn builder() -> RedisBackendBuilder {
        RedisBackendBuilder::default()
    }
}

impl RedisBackendBuilder {
    /// The first part of the name of all that is stored, before a colon. `syncguard` by default.
    ///
    /// Change it to keep the locks of several systems on one server apart, or for a Redis Cluster,
    /// where it must hold a hash tag: `{syncguard}`. All processes, in all languages, that contend
    /// for the same locks use the same prefix. It may be empty.
    ///
    /// No prefix of a server may begin with another one and a colon, as `app:billing` does with
    /// `app`: a lock of one could have the name of something that the other one keeps. So beside an
    /// empty prefix there is no other.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// How long a command may wait for its answer, and before that for a connection. 3 seconds by
    /// default.
    ///
    /// A healthy server is away for less, for a fork or a slow command. And an operation that timed
    /// out can be repeated: within the 5 seconds for which a waiter waits by default, and several
    /// times before a lease of 30 seconds ends. Keep the timeout below a third of your shortest TTL
    /// with keep-alive. A command that timed out may still be carried out. Its connection is
    /// replaced.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Whether releases notify waiters, through [pub/sub](crate#waiting). Yes by default.
    ///
    /// If false, this process makes no connection for notifications, its releases notify no other
    /// process, and its waiters go by timer alone. Turn them off if the server or a proxy before it
    /// has no pub/sub, or if one more connection per waiting process is too many.
    pub fn notifications(mut self, notifications: bool) -> Self {
        self.notifications = notifications;
        self
    }

    /// Sets how concurrent operations share calls: at most `lanes` calls are under way at a time, each
    /// with at most `most` operations. The default is 8 lanes and 32 operations. A value of 0 counts
    /// as 1.
    ///
    /// While fewer are under way, an operation is sent at once and alone. Otherwise it waits until one
    /// of them is answered, and goes out with all others that wait. So a call serves many locks when
    /// there is much to do, and nothing is delayed when there is not. A call of many operations keeps
    /// the server from serving others meanwhile, for some microseconds per operation.
    pub fn group_commit(mut self, lanes: usize, most: usize) -> Self {
        self.group_commit = Some(GroupCommit { lanes, cap: most });
        self
    }

    /// Sends each operation in a call of its own.
    pub fn without_group_commit(mut self) -> Self {
        self.group_commit = None;
        self
    }

    /// Connects to a server by its URL.
    ///
    /// | server | URL |
    /// |---|---|
    /// | single | `redis://user:password@host:6379/0` |
    /// | cluster | `redis-cluster://host:7000?node=host2:7000` |
    /// | behind Sentinel | `redis-sentinel://host:26379?sentinelServiceName=main&node=host2:26379` |
    /// | Unix socket | `unix:///run/redis.sock`, with the feature `unix-sockets` |
    ///
    /// `valkey`, `valkey-cluster` and `valkey-sentinel` mean the same as `redis` and so on.
    /// `rediss`, `rediss-cluster` and `rediss-sentinel` use TLS, as do `valkeys` and so on, and need
    /// one of the `tls-` features. For anything else that fred can do, make a client and give it to
    /// [`build`](Self::build).
    ///
    /// The backend replaces its connection whenever it breaks or hangs, and closes it when the last
    /// clone of the backend is dropped.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorCode::InvalidArgument) if the URL or an option is not valid or needs
    /// a feature that is off; otherwise as the crate's [table](crate#errors) says, such as
    /// [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) if no server listens there. It takes at
    /// most the command timeout.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn connect(self, url: &str) -> Result<RedisBackend> {
        self.check()?;
        let connector = Connector::new(url::parse(url)?, self.command_timeout);
        let backend = self.backend(vec![connector])?;
        backend.connect_now().await?;
        Ok(backend)
    }

    /// Builds a backend that connects as your own fred `Client` or `Pool` would.
    ///
    /// The backend makes connections of its own with the configuration of yours: one for a `Client`,
    /// as many as its size for a `Pool`. Your client is not used, so it need not be connected, and
    /// its blocking commands delay no lock. The connections of the backend have the command timeout
    /// of this builder, and are always made again: a reconnect policy of yours is not needed.
    ///
    /// A connection is made when an operation first needs it. Then also a wrong password is reported.
    ///
    /// With a `Client`, the commands of a lock stay in order. With a `Pool` they do not, because they
    /// take several connections: if an acquisition is stuck on one of them and is given up, the
    /// release that undoes it can overtake it, and the key is then held until the TTL ends.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorCode::InvalidArgument) if an option is not valid, or if it is a
    /// client of a cluster and the key prefix has no hash tag.
    pub fn build(self, client: impl Into<Connection>) -> Result<RedisBackend> {
        self.check()?;
        let connection = client.into();
        let like = |client| Connector::like(client, self.command_timeout);
        let connectors = connection.clients().iter().map(like).collect();
        self.backend(connectors)
    }

    /// Checks the options that no type checks.
    fn check(&self) -> Result<()> {
        // For fred, no time at all means no limit.
        if self.command_timeout.is_zero() || self.command_timeout > LONGEST_TIMEOUT {
            return Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure)
                .with_message("the command timeout must be more than zero and at most an hour"));
        }
        Ok(())
    }

    fn backend(self, connectors: Vec<Connector>) -> Result<RedisBackend> {
        // All clients of a pool have one configuration.
        let clustered = connectors.iter().any(Connector::is_clustered);
        let names = Names::new(&self.key_prefix, clustered)?;
        let listener = connectors.first().filter(|_| self.notifications).cloned();
        let connections = Connections::new(connectors);
        let groups = Groups::new(
            connections.clone(),
            self.options(clustered),
            self.command_timeout,
            self.group_commit,
        );
        let notifications = listener.map(Notifications::new);
        Ok(RedisBackend::from_parts(connections, groups, names, notifications))
    }

    fn options(&self, clustered: bool) -> Options {
        Options {
            timeout: Some(self.command_timeout),
            // A command is sent once. Only the nodes of a cluster may redirect it, which they do
            // instead of running it, and each time counts as an attempt: fred ends the whole client
            // when those run out while it follows. There, `fail_fast` is what keeps a command that
            // was in flight on a lost connection from being sent again. It does not when fred drops
            // a connection because the cluster has changed its shape.
            max_attempts: Some(if clustered { REDIRECTIONS + 4 } else { 1 }),
            max_redirections: Some(REDIRECTIONS),
            fail_fast: clustered,
            cluster_hash: Some(FIRST_KEY),
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use fred::types::Builder;

    use super::*;

    async fn refused(builder: RedisBackendBuilder, url: &str) -> String {
        let error = builder.connect(url).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
        error.to_string()
    }

    #[tokio::test]
    async fn e3_a_url_that_cannot_be_used_is_refused_before_any_connection() {
        let builder = RedisBackendBuilder::default;
        for url in ["", "localhost", "http://localhost", "redis://", "redis://h/x"] {
            refused(builder(), url).await;
        }
        let text = refused(builder(), "redis-cluster://127.0.0.1:1").await;
        assert!(text.contains("hash tag"), "{text}");
        refused(builder().key_prefix("fence"), "redis://127.0.0.1:1").await;
        for timeout in [Duration::ZERO, Duration::MAX] {
            refused(builder().command_timeout(timeout), "redis://127.0.0.1:1").await;
        }
    }

    #[test]
    fn e3_a_client_of_a_cluster_needs_a_hash_tag() {
        let client = Builder::default_clustered().build().unwrap();
        let error = RedisBackend::new(client.clone()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        let builder = RedisBackendBuilder::default().key_prefix("{syncguard}");
        assert!(builder.build(client).is_ok());
    }
}

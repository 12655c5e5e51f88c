//! Servers on the network of this host, which talk to each other and tell clients where they are.

use std::error::Error;

use testcontainers::{ContainerAsync, GenericImage};

use super::{Raw, raw};
use contract_tests::ports::free_port;
use contract_tests::servers::Server;

/// A server on the network of this host.
pub(super) struct Node {
    pub(super) port: u16,
    pub(super) raw: Raw,
    pub(super) container: ContainerAsync<GenericImage>,
}

pub(super) type Started<T> = Result<T, Box<dyn Error + Send + Sync>>;

impl Node {
    pub(super) async fn start(server: &Server, settings: &[&str]) -> Started<Self> {
        Self::start_at(server, free_port(), settings).await
    }

    pub(super) async fn start_at(server: &Server, port: u16, settings: &[&str]) -> Started<Self> {
        let number = port.to_string();
        let command =
            ["redis-server", "--save", "", "--protected-mode", "no", "--port", number.as_str()];
        let command = [&command[..], settings].concat();
        let container = server.on_host(&command, None, "Ready to accept connections").await?;
        let raw = raw(&format!("redis://127.0.0.1:{port}")).await;
        Ok(Self { port, raw, container })
    }

    /// Asks over a new connection: a Sentinel closes those to the server that it promotes.
    async fn replication(&self) -> String {
        let raw = raw(&format!("redis://127.0.0.1:{}", self.port)).await;
        let answer = raw.try_run(&["INFO", "replication"]).await;
        answer.ok().and_then(|text| text.as_string()).unwrap_or_default()
    }

    pub(super) async fn is_replica_in_sync(&self) -> bool {
        self.replication().await.contains("master_link_status:up")
    }

    pub(super) async fn is_master(&self) -> bool {
        self.replication().await.contains("role:master")
    }
}

//! The server under test, and the network before it.

use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use contract_tests::servers::{Server, Spare};
use syncguard::{Backend, Key};
use syncguard_postgres::sqlx::postgres::PgConnection;
use syncguard_postgres::sqlx::{AssertSqlSafe, Connection, raw_sql};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::keys::Keys;
use crate::outcome::Outcome;
use crate::store::{Store, postgres_url};

/// A server that keeps its data while it is stopped, behind a forwarder.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) store: Store,
    pub(crate) forwarder: Forwarder,
    spare: Spare,
}

/// Redis writes each command to disk before it answers. The folder can be written in any image.
const REDIS: [&str; 11] = [
    "redis-server",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--save",
    "",
    "--protected-mode",
    "no",
    "--dir",
    "/tmp",
];
/// Sessions that a silent network left behind count until the server notices.
const POSTGRES: [&str; 2] = ["-c", "max_connections=300"];
/// How long a server may take to start.
const STARTING: Duration = Duration::from_secs(60);

impl Target {
    pub(crate) async fn start(store: Store) -> Outcome<Self> {
        let spare = match store {
            Store::Firestore => Server::firestore().spare(&[]).await?,
            Store::Postgres => Server::postgres().spare(&POSTGRES).await?,
            Store::Redis => Server::redis().spare(&REDIS).await?,
        };
        let forwarder = Forwarder::to(format!("127.0.0.1:{}", spare.port)).await?;
        let target = Self { store, forwarder, spare };
        target.until_up().await?;
        store.set_up(target.spare.port).await?;
        Ok(target)
    }

    /// The port of the server itself, without the forwarder.
    pub(crate) const fn direct_port(&self) -> u16 {
        self.spare.port
    }

    /// Stops the server: with SIGKILL, or with time to end in order.
    pub(crate) async fn stop(&self, in_order: bool) -> Outcome {
        let seconds = if in_order { 5 } else { 0 };
        Ok(self.spare.container.stop_with_timeout(Some(seconds)).await?)
    }

    pub(crate) async fn restart(&self) -> Outcome {
        self.spare.container.start().await?;
        self.until_up().await
    }

    pub(crate) async fn freeze(&self) -> Outcome {
        Ok(self.spare.container.pause().await?)
    }

    pub(crate) async fn thaw(&self) -> Outcome {
        Ok(self.spare.container.unpause().await?)
    }

    /// Connects new clients to nothing, or to the server again.
    pub(crate) fn refuse(&self, refuse: bool) {
        let port = if refuse { 1 } else { self.spare.port };
        self.forwarder.switch_to(format!("127.0.0.1:{port}"));
        if refuse {
            self.forwarder.cut();
        }
    }

    /// Makes Redis forget its scripts.
    pub(crate) async fn flush_scripts(&self) -> Outcome {
        self.send("SCRIPT FLUSH\r\n").await
    }

    /// Ends all sessions of Postgres but this one.
    pub(crate) async fn terminate_sessions(&self) -> Outcome {
        self.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .await
    }

    /// Deletes the fence counters, which nobody may ever do.
    pub(crate) async fn delete_counters(&self, keys: &Keys) -> Outcome {
        match self.store {
            // The emulator deletes all documents, the locks too.
            Store::Firestore => {
                let path = "/emulator/v1/projects/chaos/databases/(default)/documents";
                self.send(&format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
            }
            Store::Postgres => self.query("DELETE FROM syncguard_fence_counters").await,
            Store::Redis => {
                let names =
                    keys.locks().into_iter().map(|key| format!(" syncguard:fence:syncguard:{key}"));
                self.send(&format!("DEL{}\r\n", names.collect::<String>())).await
            }
        }
    }

    /// Writes something as a plain client does, without the forwarder and the library.
    pub(crate) async fn write(&self) -> Outcome {
        match self.store {
            Store::Firestore => {
                let path = "/v1/projects/chaos/databases/(default)/documents/plain/client";
                let body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
                self.send(&format!("PATCH {path} HTTP/1.1\r\nHost: localhost\r\n{body}")).await
            }
            Store::Postgres => {
                self.query(
                    "CREATE TABLE IF NOT EXISTS plain_client (at timestamptz); \
                     INSERT INTO plain_client VALUES (now())",
                )
                .await
            }
            Store::Redis => self.send("SET plain:client now\r\n").await,
        }
    }

    /// Sends a request to the server, and waits for the beginning of the answer.
    async fn send(&self, request: &str) -> Outcome {
        let mut stream = TcpStream::connect(("127.0.0.1", self.spare.port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).await?;
        if read == 0 || answer[0] == b'-' {
            return Err(format!("{request}: {}", String::from_utf8_lossy(&answer[..read])).into());
        }
        Ok(())
    }

    async fn query(&self, sql: &'static str) -> Outcome {
        let mut session = PgConnection::connect(&postgres_url(self.spare.port)).await?;
        raw_sql(AssertSqlSafe(sql)).execute(&mut session).await?;
        Ok(())
    }

    async fn until_up(&self) -> Outcome {
        let key = Key::new("is-it-up")?;
        let up = async {
            loop {
                let answer = match self.store.connect(self.spare.port).await {
                    // Before its tables exist, Postgres answers that they do not.
                    Ok(backend) => backend.get(&key).await.map(drop),
                    Err(error) => Err(error),
                };
                match answer {
                    Err(error) if error.is_transient() => sleep(Duration::from_millis(20)).await,
                    _ => return,
                }
            }
        };
        Ok(timeout(STARTING, up).await.map_err(|_| "the server does not start")?)
    }
}

//! The three stores, and how a worker connects to one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncguard::{AnyBackend, Result};
use syncguard_firestore::FirestoreBackend;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;

/// A store that keeps locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Store {
    Firestore,
    Postgres,
    Redis,
}

const PROJECT: &str = "chaos";

impl Store {
    /// Connects to the store at this port of this machine.
    pub(crate) async fn connect(self, port: u16) -> Result<AnyBackend> {
        Ok(match self {
            Self::Firestore => {
                let builder = FirestoreBackend::builder().emulator(format!("127.0.0.1:{port}"));
                let builder = builder.notifications(true).command_timeout(self.command_timeout());
                AnyBackend::new(builder.connect(PROJECT).await?)
            }
            Self::Postgres => {
                let builder = PostgresBackend::builder().command_timeout(self.command_timeout());
                AnyBackend::new(builder.connect(&postgres_url(port)).await?)
            }
            Self::Redis => {
                let builder = RedisBackend::builder().command_timeout(self.command_timeout());
                AnyBackend::new(builder.connect(&redis_url(port)).await?)
            }
        })
    }

    /// Below half of most TTLs, so that one silent request does not cost a lease, and long enough for
    /// a machine that compiles meanwhile. The emulator is slow: it locks documents.
    const fn command_timeout(self) -> Duration {
        match self {
            Self::Firestore => Duration::from_millis(1_500),
            Self::Postgres | Self::Redis => Duration::from_millis(800),
        }
    }

    /// How many tasks of a worker contend for the keys that are held for moments.
    pub(crate) const fn short_tasks(self) -> u64 {
        match self {
            Self::Firestore => 4,
            Self::Postgres | Self::Redis => 20,
        }
    }

    /// Creates tables, if the store needs them.
    pub(crate) async fn set_up(self, port: u16) -> Result<()> {
        match self {
            Self::Postgres => {
                PostgresBackend::connect(&postgres_url(port)).await?.setup_schema().await
            }
            Self::Firestore | Self::Redis => Ok(()),
        }
    }

    /// Whether a restarted server still has its data.
    pub(crate) const fn persists(self) -> bool {
        !matches!(self, Self::Firestore)
    }
}

pub(crate) fn postgres_url(port: u16) -> String {
    format!("postgres://postgres:postgres@127.0.0.1:{port}/postgres")
}

pub(crate) fn redis_url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

impl FromStr for Store {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "firestore" => Ok(Self::Firestore),
            "postgres" => Ok(Self::Postgres),
            "redis" => Ok(Self::Redis),
            _ => Err(format!("{name} is no store: choose redis, postgres or firestore")),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firestore => "firestore",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        })
    }
}

//! The stores, by URL.

use syncguard::LockManager;
use syncguard_bench::Outcome;
use syncguard_memory::MemoryBackend;

use crate::contestant::Contestant;
use crate::options::Pace;
use crate::{firestore, memory, postgres, redis};

pub(crate) enum Store {
    Redis(String),
    Postgres(String),
    /// An emulator.
    Firestore(String),
    /// Of each process its own.
    Memory(String),
}

impl Store {
    pub(crate) fn parse(url: &str) -> Outcome<Self> {
        match url.split(':').next() {
            Some("redis") => Ok(Self::Redis(url.to_owned())),
            Some("postgres" | "postgresql") => Ok(Self::Postgres(url.to_owned())),
            Some("http") => Ok(Self::Firestore(url.to_owned())),
            Some("memory") => Ok(Self::Memory(url.to_owned())),
            _ => Err(format!("no benchmark for {url}").into()),
        }
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Redis(url) | Self::Postgres(url) | Self::Firestore(url) | Self::Memory(url) => {
                url
            }
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "Redis",
            Self::Postgres(_) => "Postgres",
            Self::Firestore(_) => "Firestore",
            Self::Memory(_) => "Memory",
        }
    }

    /// A line: its version, and the settings that matter.
    pub(crate) async fn about(&self) -> Outcome<String> {
        match self {
            Self::Redis(url) => redis::about(url).await,
            Self::Postgres(url) => postgres::about(url).await,
            Self::Firestore(_) => Ok("Firestore: an emulator, which tells no version".to_owned()),
            Self::Memory(_) => Ok("Memory: of this process".to_owned()),
        }
    }

    /// Prints what a cycle costs that nobody disturbs.
    pub(crate) async fn uncontended(&self, pace: Pace) -> Outcome {
        match self {
            Self::Redis(url) => redis::uncontended(url, pace).await,
            Self::Postgres(url) => postgres::uncontended(url, pace).await,
            Self::Firestore(url) => firestore::uncontended(url, pace).await,
            Self::Memory(_) => memory::uncontended(pace).await,
        }
    }

    pub(crate) const fn on_the_hot_key(&self) -> &'static [&'static str] {
        match self {
            Self::Redis(_) => redis::ON_THE_HOT_KEY,
            Self::Postgres(_) => postgres::ON_THE_HOT_KEY,
            Self::Firestore(_) => firestore::ON_THE_HOT_KEY,
            Self::Memory(_) => memory::ON_THE_HOT_KEY,
        }
    }

    /// Whether several processes can contend for one key.
    pub(crate) const fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// Whether every worker needs a connection of its own.
    pub(crate) fn holds_a_connection_each(&self, contestant: &str) -> bool {
        matches!(self, Self::Postgres(_)) && contestant == postgres::SESSION_LOCK
    }

    /// One of those on the hot key, with so many connections where it has a pool.
    pub(crate) async fn contestant(&self, name: &str, connections: usize) -> Outcome<Contestant> {
        match self {
            Self::Redis(url) => redis::contestant(url, name).await,
            Self::Postgres(url) => postgres::contestant(url, name, connections).await,
            Self::Firestore(url) => firestore::contestant(url, name).await,
            Self::Memory(_) => Ok(memory::contestant()),
        }
    }

    pub(crate) async fn locks(&self) -> Outcome<LockManager> {
        Ok(match self {
            Self::Redis(url) => LockManager::new(redis::backend(url).await?),
            Self::Postgres(url) => LockManager::new(postgres::backend(url).await?),
            Self::Firestore(url) => LockManager::new(firestore::backend(url, false).await?),
            Self::Memory(_) => LockManager::new(MemoryBackend::new()),
        })
    }

    pub(crate) async fn counter(&self) -> Outcome<Counter> {
        Ok(match self {
            Self::Redis(url) => Counter::Redis(redis::Commands::connect(url).await?),
            Self::Postgres(url) => Counter::Postgres(postgres::Statements::connect(url).await?),
            Self::Firestore(url) => Counter::Firestore(firestore::Requests::listen(url).await?),
            Self::Memory(_) => Counter::None,
        })
    }
}

/// What a server counts, or something between it and its clients; and what it allows.
pub(crate) enum Counter {
    Redis(redis::Commands),
    Postgres(postgres::Statements),
    Firestore(firestore::Requests),
    None,
}

impl Counter {
    pub(crate) const fn unit(&self) -> &'static str {
        match self {
            Self::Redis(_) => "commands/grant",
            Self::Postgres(_) => "statements/grant",
            Self::Firestore(_) | Self::None => "requests/grant",
        }
    }

    /// Where clients must connect to be counted, if that is not the server itself: a way that takes longer.
    pub(crate) fn detour(&self) -> Option<&str> {
        match self {
            Self::Firestore(requests) => Some(requests.url()),
            Self::Redis(_) | Self::Postgres(_) | Self::None => None,
        }
    }

    /// How much was counted so far, where anything is.
    pub(crate) async fn commands(&mut self, contestant: &str) -> Outcome<Option<f64>> {
        match self {
            Self::Redis(commands) => commands.count(contestant).await.map(Some),
            Self::Postgres(statements) => statements.count().await,
            Self::Firestore(requests) => Ok(Some(requests.count())),
            Self::None => Ok(None),
        }
    }

    /// How many connections the server has to give, where that is a limit.
    pub(crate) async fn connections(&mut self) -> Outcome<Option<usize>> {
        match self {
            Self::Postgres(statements) => statements.connections().await.map(Some),
            Self::Redis(_) | Self::Firestore(_) | Self::None => Ok(None),
        }
    }
}

//! The stores, selected by URL.

use syncguard::LockManager;
use syncguard_bench::Outcome;
use syncguard_memory::MemoryBackend;

use crate::choice::Choice;
use crate::contestant::Contestant;
use crate::options::Pace;
use crate::{firestore, memory, postgres, redis};

pub(crate) enum Store {
    Redis(String),
    Postgres(String),
    /// A Firestore emulator.
    Firestore(String),
    /// Memory, which each process has for itself.
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

    /// Describes the version and the relevant settings in one line.
    pub(crate) async fn about(&self) -> Outcome<String> {
        match self {
            Self::Redis(url) => redis::about(url).await,
            Self::Postgres(url) => postgres::about(url).await,
            Self::Firestore(_) => Ok("Firestore: an emulator, which reports no version".to_owned()),
            Self::Memory(_) => Ok("Memory: of this process".to_owned()),
        }
    }

    /// Prints the cost of a cycle without contention.
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

    /// Returns true if several processes can contend for one key.
    pub(crate) const fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    /// Returns true if concurrent operations share requests.
    pub(crate) const fn has_group_commit(&self) -> bool {
        matches!(self, Self::Redis(_) | Self::Postgres(_))
    }

    /// Returns true if every worker needs a connection of its own.
    pub(crate) fn holds_a_connection_each(&self, contestant: &str) -> bool {
        matches!(self, Self::Postgres(_)) && contestant == postgres::SESSION_LOCK
    }

    /// Creates a contestant for the hot key. If it has a pool, that has this many connections.
    pub(crate) async fn contestant(&self, name: &str, connections: usize) -> Outcome<Contestant> {
        match self {
            Self::Redis(url) => redis::contestant(url, name).await,
            Self::Postgres(url) => postgres::contestant(url, name, connections).await,
            Self::Firestore(url) => firestore::contestant(url, name).await,
            Self::Memory(_) => Ok(memory::contestant()),
        }
    }

    /// Creates a contestant with chosen options of group commit.
    pub(crate) async fn chosen(&self, url: &str, choice: Choice) -> Outcome<Contestant> {
        match self {
            Self::Redis(_) => Ok(Contestant::lock_manager(redis::chosen(url, choice).await?)),
            Self::Postgres(_) => Ok(Contestant::lock_manager(postgres::chosen(url, choice).await?)),
            _ => Err(format!("{} has no group commit", self.name()).into()),
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

/// Counts what clients send: by a query to the server, or with a proxy. It also knows how many
/// connections the server allows.
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

    /// Returns the URL of the counting proxy, if there is one. It slows clients down.
    pub(crate) fn proxy_url(&self) -> Option<&str> {
        match self {
            Self::Firestore(requests) => Some(requests.url()),
            Self::Redis(_) | Self::Postgres(_) | Self::None => None,
        }
    }

    /// Returns the count so far, if anything counts.
    pub(crate) async fn commands(&mut self, contestant: &str) -> Outcome<Option<f64>> {
        match self {
            Self::Redis(commands) => commands.count(contestant).await.map(Some),
            Self::Postgres(statements) => statements.count().await,
            Self::Firestore(requests) => Ok(Some(requests.count())),
            Self::None => Ok(None),
        }
    }

    /// Returns how many connections the server has left, if it has a limit.
    pub(crate) async fn connections(&mut self) -> Outcome<Option<usize>> {
        match self {
            Self::Postgres(statements) => statements.connections().await.map(Some),
            Self::Redis(_) | Self::Firestore(_) | Self::None => Ok(None),
        }
    }
}

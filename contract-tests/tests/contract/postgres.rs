//! Postgres: the contract suite over every kind of connection, and the trials of this backend
//! alone.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an assertion of a trial may panic")]

mod away;
mod connections;
mod crowd;
mod errors;
mod faults;
mod full_queue;
mod group_commit;
mod handoff;
mod listening;
mod notifications;
mod other_client;
mod overlaps;
mod overload;
mod plans;
mod pooler;
mod publishing;
mod racers;
mod recovery;
mod replicas;
mod round_trips;
mod schema;
mod settings;
mod shared_statements;
mod transactions;

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_postgres::sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use syncguard_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor};
use syncguard_postgres::{
    Acquired, Capabilities, Clock, Key, Lease, LockId, PostgresBackend, Result, Ttl,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use contract_tests::servers::Server;
use contract_tests::{describe, limited};

type Outcome<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Case = fn(Arc<Server>) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Lists the trials of one file by the names of their functions.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases() -> Vec<(&'static str, super::Case)> {
            vec![$((
                concat!(module_path!(), "::", stringify!($case)),
                |server| Box::pin($case(server)),
            )),+]
        }
    };
}
use cases;

/// The capabilities of a backend that receives notifications.
const CAPABILITIES: Capabilities =
    Capabilities::new(Clock::Server).with_handoff().with_publishing().with_notifications();

/// The capabilities of a backend whose pool prepares no statements. Such a backend assumes a
/// pooler, which forwards no notifications.
const WITHOUT_PREPARED_STATEMENTS: Capabilities = Capabilities::new(Clock::Server)
    .with_handoff()
    .with_publishing()
    .with_sent_notifications_only();

pub(crate) fn trials(runtime: &Handle) -> Vec<Trial> {
    let server = Arc::new(Server::postgres());
    let suite = |name, capabilities, options: fn(PgConnectOptions) -> PgConnectOptions| {
        let server = server.clone();
        contract_tests::trials(runtime, name, capabilities, move || {
            let server = server.clone();
            async move {
                let backend = backend(&server, 3, options).await?;
                backend.setup_schema().await.map_err(|e| e.to_string())?;
                Ok::<_, String>(backend)
            }
        })
    };
    let mut all = suite("postgres", CAPABILITIES, |options| options);
    all.extend(suite("postgres_as_text", WITHOUT_PREPARED_STATEMENTS, |options| {
        options.statement_cache_capacity(0)
    }));
    all.extend(suite("postgres_repeatable_read", CAPABILITIES, |options| {
        options.options([("default_transaction_isolation", "repeatable read")])
    }));
    all.extend(suite("postgres_serializable", CAPABILITIES, |options| {
        options.options([("default_transaction_isolation", "serializable")])
    }));
    for (name, lanes) in [("postgres_one_lane", Some(1)), ("postgres_alone", None)] {
        let server = server.clone();
        all.extend(contract_tests::trials(runtime, name, CAPABILITIES, move || {
            let server = server.clone();
            async move {
                let pool = pool(&server, 3, |options| options).await?;
                let builder = PostgresBackend::builder().command_timeout(PATIENCE);
                let builder = match lanes {
                    Some(lanes) => builder.group_commit(lanes, 100),
                    None => builder.without_group_commit(),
                };
                let backend = builder.build(pool).map_err(|error| error.to_string())?;
                backend.setup_schema().await.map_err(|error| error.to_string())?;
                Ok::<_, String>(backend)
            }
        }));
    }
    all.extend(pooler::suite(runtime, &server));

    let own = [
        away::cases(),
        connections::cases(),
        crowd::cases(),
        errors::cases(),
        faults::cases(),
        full_queue::cases(),
        group_commit::cases(),
        handoff::cases(),
        listening::cases(),
        notifications::cases(),
        other_client::cases(),
        overlaps::cases(),
        overload::cases(),
        plans::cases(),
        pooler::cases(),
        publishing::cases(),
        racers::cases(),
        recovery::cases(),
        round_trips::cases(),
        schema::cases(),
        settings::cases(),
        shared_statements::cases(),
        transactions::cases(),
    ];
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    all.extend(own.into_iter().flatten().map(|(path, case)| {
        let name = path.trim_start_matches("contract::");
        let (runtime, server, slots) = (runtime.clone(), server.clone(), slots.clone());
        Trial::test(name, move || {
            runtime.block_on(async {
                let _slot = slots.acquire().await;
                Ok(limited(case(server)).await?.map_err(describe)?)
            })
        })
    }));
    all
}

/// Returns the options for another user of the same database.
fn as_user(options: &PgConnectOptions, user: &str) -> PgConnectOptions {
    let database = options.get_database().unwrap_or(options.get_username());
    let options = options.clone().database(database);
    options.username(user).password("secret")
}

/// Creates a backend with a pool of its own.
async fn backend(
    server: &Server,
    connections: u32,
    options: impl Fn(PgConnectOptions) -> PgConnectOptions + Sync,
) -> std::result::Result<PostgresBackend, String> {
    let pool = pool(server, connections, options).await?;
    patient(pool).map_err(|error| error.to_string())
}

/// Creates a pool that connects when it is used.
async fn pool(
    server: &Server,
    connections: u32,
    options: impl Fn(PgConnectOptions) -> PgConnectOptions + Sync,
) -> std::result::Result<PgPool, String> {
    static UP: AtomicBool = AtomicBool::new(false);
    // Passwords cost time, so only the first connection is made in advance.
    let connect = async |url: String| {
        if !UP.load(Ordering::Relaxed) {
            PgConnection::connect(&url).await?;
            UP.store(true, Ordering::Relaxed);
        }
        url.parse::<PgConnectOptions>()
    };
    let options = options(server.client(&connect).await?);
    Ok(pool_of(connections).connect_lazy_with(options))
}

/// Creates a backend with a time limit that a busy machine keeps.
fn patient(pool: PgPool) -> Result<PostgresBackend> {
    PostgresBackend::builder().command_timeout(PATIENCE).build(pool)
}

fn pool_of(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE)
}

/// The time limit of an operation in trials that are not about time. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many of these trials run at a time. A server accepts 100 connections by default.
const AT_A_TIME: usize = 3;

/// Creates a backend and its tables, as a service would.
async fn service(
    server: &Server,
) -> std::result::Result<PostgresBackend, Box<dyn Error + Send + Sync>> {
    let backend = backend(server, 8, |options| options).await?;
    backend.setup_schema().await?;
    Ok(backend)
}

/// Creates an empty schema, and returns a pool that uses it by default, and its name.
async fn empty_schema(
    server: &Server,
) -> std::result::Result<(PgPool, String), Box<dyn Error + Send + Sync>> {
    let name = format!("trial_{}", fresh_id().fingerprint());
    let admin = backend(server, 1, |options| options).await?;
    execute(admin.pool(), format!("CREATE SCHEMA {name}")).await?;
    let options = PgConnectOptions::clone(&admin.pool().connect_options());
    let options = options.options([("search_path", &name)]);
    Ok((pool_of(8).connect_lazy_with(options), name))
}

async fn execute(pool: &PgPool, sql: impl Into<String>) -> sqlx::Result<u64> {
    let done = pool.execute(sqlx::raw_sql(AssertSqlSafe(sql.into()))).await?;
    Ok(done.rows_affected())
}

/// Makes the lease of a key dead in `millis` ms. The tolerance is part of that time.
async fn end_in(pool: &PgPool, key: &Key, millis: i64) -> sqlx::Result<()> {
    let sql = "UPDATE syncguard_locks SET expires_at_ms = \
        floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - 1000 + $2 WHERE key = $1";
    let query = sqlx::query(sql).bind(key.as_str()).bind(millis);
    query.execute(pool).await.map(drop)
}

fn fresh_key() -> Key {
    Key::new(&format!("trial:{}", fresh_id().as_str())).unwrap()
}

fn fresh_id() -> LockId {
    LockId::random().unwrap()
}

fn minute() -> Ttl {
    Duration::from_secs(60).try_into().unwrap()
}

/// Returns the lease of an attempt, or `None` if the key is held.
fn lease(acquired: Result<Acquired>) -> Result<Option<Lease>> {
    Ok(match acquired? {
        Acquired::Granted(lease) => Some(lease),
        Acquired::Held { .. } => None,
    })
}

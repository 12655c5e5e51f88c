//! Postgres, compared with the same statements on bare connections, and with session locks.

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use syncguard_bench::Outcome;
use syncguard_postgres::{PostgresBackend, sqlx};

use crate::choice::Choice;
use crate::contestant::{Contestant, LOCK_MANAGER};
use crate::options::Pace;
use crate::uncontended::compare;

mod floor;
mod peers;
mod statements;

pub(crate) use floor::SESSION_LOCK;
pub(crate) use statements::Statements;

pub(crate) const ON_THE_HOT_KEY: &[&str] =
    &[LOCK_MANAGER, peers::DISTRIBUTED_LOCK, SESSION_LOCK, floor::ROW_PER_GRANT];

/// What a backend opens at most by default.
const DEFAULT_CONNECTIONS: usize = 10;
/// So many tasks are compared with session locks alone, which need as many connections.
const CROWD: usize = 256;

pub(crate) async fn about(url: &str) -> Outcome<String> {
    let mut connection = PgConnection::connect(url).await?;
    let settings = sqlx::query_scalar(
        "SELECT format('PostgreSQL %s: fsync %s, synchronous_commit %s, shared_buffers %s', \
             current_setting('server_version'), current_setting('fsync'), \
             current_setting('synchronous_commit'), current_setting('shared_buffers'))",
    );
    Ok(settings.fetch_one(&mut connection).await?)
}

pub(crate) async fn uncontended(url: &str, pace: Pace) -> Outcome {
    let mut statements = Statements::connect(url).await?;
    let available = statements.connections().await?;
    // Three contestants have a connection for each task, and some have a spare one. SyncGuard has its
    // default.
    let needed = |tasks: usize| 3 * (tasks + 1) + 2 * DEFAULT_CONNECTIONS;
    let (tasks, too_many): (Vec<_>, Vec<_>) =
        [1, 4, 16, 64].into_iter().partition(|tasks| needed(*tasks) <= available);
    let most = tasks.last().copied().unwrap_or(1);
    let contestants = [
        floor::same_statements(url),
        Contestant::backend_alone(backend(url).await?)?,
        Contestant::lock_manager(backend(url).await?),
        peers::distributed_lock(url, most).await?,
        floor::session_lock(url),
    ];
    compare("Postgres", &contestants, &tasks, pace).await?;
    drop(contestants);
    for tasks in too_many {
        println!("{tasks} tasks: n/a, because they need {} connections.", needed(tasks));
    }
    if statements.connections().await? <= CROWD + DEFAULT_CONNECTIONS {
        println!("{CROWD} tasks: n/a, because session locks need a connection for each.");
        return Ok(());
    }
    let contestants = [floor::session_lock(url), Contestant::lock_manager(backend(url).await?)];
    // Session locks write nothing, so they do not suffer from what the others have left.
    statements.vacuum().await?;
    compare("Postgres, compared with session locks", &contestants, &[CROWD], pace).await
}

pub(crate) async fn contestant(url: &str, name: &str, connections: usize) -> Outcome<Contestant> {
    match name {
        LOCK_MANAGER => Ok(Contestant::lock_manager(backend(url).await?)),
        peers::DISTRIBUTED_LOCK => peers::distributed_lock(url, connections).await,
        SESSION_LOCK => Ok(floor::session_lock(url)),
        floor::ROW_PER_GRANT => Ok(floor::row_per_grant(url)),
        _ => Err(format!("no contestant {name} on Postgres").into()),
    }
}

/// Creates a backend with a pool of its own, of up to 10 connections.
pub(crate) async fn backend(url: &str) -> Outcome<PostgresBackend> {
    let backend = PostgresBackend::connect(url).await?;
    backend.setup_schema().await?;
    Ok(backend)
}

/// Connects with chosen lanes, caps and connections.
pub(crate) async fn chosen(url: &str, choice: Choice) -> Outcome<PostgresBackend> {
    let builder = PostgresBackend::builder().max_connections(choice.connections);
    let builder = match choice.lanes {
        Some((lanes, most)) => builder.group_commit(lanes, most),
        None => builder.without_group_commit(),
    };
    let backend = builder.connect(url).await?;
    backend.setup_schema().await?;
    Ok(backend)
}

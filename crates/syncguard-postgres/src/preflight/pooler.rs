//! Whether a pooler gives each transaction another session.

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};
use syncguard_core::{Finding, Level};

use crate::PostgresBackend;
use crate::connections::Purpose;
use crate::operations::Protocol;

pub(super) const POOLER_MODE: &str = "pooler-mode";

/// The finding of a check that could not be made.
pub(super) fn unasked(code: &'static str, reason: &str) -> Finding {
    Finding::new(Level::Unknown, code, reason.to_owned(), "")
}

/// While the first connection is in a transaction, the second gets another session. Afterwards a pooler
/// in transaction mode has two free sessions, and gives at least one of the connections the wrong one,
/// whichever order it lends them in.
pub(super) async fn check(backend: &PostgresBackend) -> Finding {
    if backend.statements().protocol == Protocol::Simple {
        let fact = "statements are sent as text, which works through any pooler";
        return Finding::new(Level::Fine, POOLER_MODE, fact, "");
    }
    let connections = backend.connections();
    let (first, second) =
        tokio::join!(connections.take(Purpose::Lease), connections.take(Purpose::Lease));
    let (Ok(mut first), Ok(mut second)) = (first, second) else {
        return unasked(POOLER_MODE, "there is no second connection");
    };
    match keep_their_sessions(first.connection(), second.connection()).await {
        Ok(keep) => {
            first.give_back();
            second.give_back();
            if keep {
                let fact = "two connections kept their sessions, so prepared statements work";
                return Finding::new(Level::Fine, POOLER_MODE, fact, "");
            }
            Finding::new(
                Level::Warning,
                POOLER_MODE,
                "a pooler gives each transaction another session, and statements are prepared",
                "set statement_cache_capacity to 0, or let the pooler keep track of prepared statements \
                 (max_prepared_statements of PgBouncer 1.21 and later)",
            )
        }
        Err(error) => {
            first.condemn(false);
            second.condemn(false);
            unasked(POOLER_MODE, &format!("the test failed: {}", crate::error::Cause::new(error)))
        }
    }
}

async fn keep_their_sessions(
    first: &mut PgConnection,
    second: &mut PgConnection,
) -> sqlx::Result<bool> {
    first.execute(sqlx::raw_sql("BEGIN")).await?;
    let before = (session(first).await?, session(second).await?);
    first.execute(sqlx::raw_sql("COMMIT")).await?;
    let after = (session(first).await?, session(second).await?);
    Ok(before == after)
}

async fn session(connection: &mut PgConnection) -> sqlx::Result<i32> {
    connection.fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()")).await?.try_get(0)
}

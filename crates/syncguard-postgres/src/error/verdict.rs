//! What an error says about its connection, and whether the statement can be sent again.

use sqlx::error::DatabaseError;
use syncguard_core::Operation;

/// What an error says about the connection on which it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request failed, and the connection works.
    Keep,
    /// The connection failed.
    Close,
    /// The server refused in a way that another session may not: a standby, a cached plan, settings
    /// of the session. The sessions opened before are the same.
    CloseAll,
}

/// Only errors that are known to be about the request leave a connection in use.
pub(crate) fn verdict(operation: Operation, error: &sqlx::Error) -> Verdict {
    match sqlstate(error).as_deref() {
        None => Verdict::Close,
        // Locks work without the table of leaders, so they keep their connections.
        Some("42P01" | "42501") if concerns_leaders(operation) => Verdict::Keep,
        Some(
            // A conflict with others, or a wait that took too long.
            "40001" | "40P01" | "54000" | "55P03" | "57014" |
            // A key or a row that the tables, or a trigger of the user, do not take.
            "22021" | "22P05" | "23502" | "23505" | "23514" | "P0001",
        ) => Verdict::Keep,
        Some(_) => Verdict::CloseAll,
    }
}

/// Whether an operation uses the table of leaders alone.
pub(super) fn concerns_leaders(operation: Operation) -> bool {
    matches!(operation, Operation::Publish | Operation::Published | Operation::Withdraw)
}

/// Whether the server undid the statement only because of others, so that it can be sent again.
///
/// 54000 says that the notification queue was full at the commit of a release. The statement checks
/// the queue before it notifies, so it sends nothing the next time.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01" | "54000"))
}

/// Whether one operation of a statement may be to blame: its value, such as a key that the server's encoding
/// lacks, a row that somebody else has locked for too long, or a trigger of the user that refuses it.
pub(crate) fn may_concern_one(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| {
        code.starts_with("22") || code.starts_with("23") || code == "55P03" || code == "P0001"
    })
}

/// Whether another process was creating the same table or index.
pub(crate) fn is_creation_race(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("23505" | "42P07" | "42710"))
}

pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error().and_then(DatabaseError::code)?;
    Some(code.into_owned())
}

//! What an error of the driver means: one table.

mod cause;
mod verdict;

use std::io;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use syncguard_core::{Error, ErrorCode, Operation};

pub(crate) use self::cause::Cause;
use self::verdict::concerns_leaders;
pub(crate) use self::verdict::{
    Verdict, is_conflict, is_creation_race, may_concern_one, sqlstate, verdict,
};
use crate::names::Names;

/// Converts an error of the driver to what the caller can do about it.
pub(crate) fn classify(operation: Operation, names: &Names, error: sqlx::Error) -> Error {
    let (code, message) = match sqlstate(&error).as_deref() {
        Some("42P01") => (ErrorCode::InvalidArgument, missing(operation, names)),
        _ => judge(&error),
    };
    Error::new(code, operation).with_message(message).with_source(Cause::new(error))
}

/// Converts an error in a transaction of the caller.
pub(crate) fn classify_in_transaction(
    operation: Operation,
    names: &Names,
    error: sqlx::Error,
) -> Error {
    // In a session of this backend, the same code says that the session must be replaced.
    let had_failed = sqlstate(&error).as_deref() == Some("25P02");
    let error = classify(operation, names, error);
    if !had_failed {
        return error;
    }
    Error::new(ErrorCode::InvalidArgument, operation)
        .with_message("the transaction has already failed: roll it back")
        .with_source(error)
}

/// The statement was sent and not answered in time. The server may still carry it out.
pub(crate) fn timed_out(operation: Operation) -> Error {
    Error::new(ErrorCode::NetworkTimeout, operation)
        .with_message("the server did not answer in time: it may still carry out the statement")
}

/// No connection in time. This says nothing about a lease, which stands until its expiry.
pub(crate) fn no_connection(operation: Operation) -> Error {
    Error::new(ErrorCode::ServiceUnavailable, operation).with_message(
        "all connections of this backend are busy: raise max_connections, or look for statements \
         that wait for a lock",
    )
}

/// The caller has closed the pool.
pub(crate) fn closed(operation: Operation) -> Error {
    Error::new(ErrorCode::Aborted, operation)
        .with_message("the pool of this backend was closed: build a backend on another pool")
}

fn missing(operation: Operation, names: &Names) -> String {
    let Names { locks, fences, leaders, .. } = names;
    let table =
        if concerns_leaders(operation) { leaders.clone() } else { format!("{locks} or {fences}") };
    format!(
        "the table {table} does not exist: call PostgresBackend::setup_schema, or run the statements \
         of schema_sql; if the tables are in another schema, name it with \
         PostgresBackendBuilder::schema"
    )
}

/// The table. The message may quote names of tables, users and settings, but no key and no id.
pub(crate) fn judge(error: &sqlx::Error) -> (ErrorCode, String) {
    use ErrorCode::{Internal, InvalidArgument, NetworkTimeout, ServiceUnavailable};
    let (code, message) = match error {
        sqlx::Error::Database(error) => return by_sqlstate(&**error),
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            (NetworkTimeout, "the server did not answer")
        }
        sqlx::Error::Io(_) => (ServiceUnavailable, "the connection was lost"),
        sqlx::Error::PoolTimedOut => (ServiceUnavailable, "no connection in time"),
        sqlx::Error::PoolClosed => (ErrorCode::Aborted, "the pool was closed"),
        sqlx::Error::WorkerCrashed => (ServiceUnavailable, "the driver has stopped"),
        sqlx::Error::Configuration(reason) => {
            return (InvalidArgument, format!("the connection options are wrong: {reason}"));
        }
        sqlx::Error::InvalidArgument(reason) => {
            return (InvalidArgument, format!("the connection options are wrong: {reason}"));
        }
        sqlx::Error::Tls(reason) => {
            return (
                InvalidArgument,
                format!(
                    "no TLS ({reason}): check sslmode, the certificates, and that the feature \
                     tls-rustls is on"
                ),
            );
        }
        sqlx::Error::Encode(_) => (InvalidArgument, "a value cannot be sent"),
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => (Internal, "the answer cannot be read"),
        sqlx::Error::Protocol(reason) if reason.contains("unsupported") => {
            (InvalidArgument, "the driver does not support what the server asks for")
        }
        // For example a proxy in front of a server that is just starting.
        sqlx::Error::Protocol(_) => {
            (ServiceUnavailable, "the server sent something that is not the Postgres protocol")
        }
        _ => (Internal, "the driver failed in an unknown way"),
    };
    (code, message.to_owned())
}

fn by_sqlstate(error: &dyn DatabaseError) -> (ErrorCode, String) {
    use ErrorCode::{
        AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
    };
    let sqlstate = error.code().unwrap_or_default();
    // Quotes names of tables, roles and settings only, in the classes where it is used below.
    let text = error.message();
    let said = |code, advice: &str| (code, format!("the server says: {text}{advice}"));
    let (code, message) = match &*sqlstate {
        "23502" | "23514" | "42703" | "42804" | "42P10" => {
            (InvalidArgument, "the tables have another shape than setup_schema gives them")
        }
        "22021" | "22P05" => {
            (InvalidArgument, "the encoding of the database lacks a character of the key")
        }
        "23505" => (InvalidArgument, "the lock id is in use for another key"),
        "26000" | "42P05" => (
            InvalidArgument,
            "a pooler does not keep prepared statements: set statement_cache_capacity to 0",
        ),
        "3D000" | "3F000" => return said(InvalidArgument, ": create it, or correct the name"),
        "22023" | "42704" | "42602" => {
            return said(InvalidArgument, ": correct the settings of the connection");
        }
        "42501" => return said(AuthFailed, ": grant it to the user of this connection"),
        "0A000" if is_stale_plan(error) => {
            (ServiceUnavailable, "the tables were changed under this session: try again")
        }
        "25006" => (
            ServiceUnavailable,
            "the server is read-only, as a standby is: try again, and check that the address leads \
             to the primary",
        ),
        "25001" | "25P02" => (ServiceUnavailable, "a transaction was left open: try again"),
        "25P03" | "57P05" => (ServiceUnavailable, "the session was idle for too long: try again"),
        "25P04" => (NetworkTimeout, "transaction_timeout ended the transaction on the server"),
        "54000" => (RateLimited, "the server's notification queue is full"),
        "55P03" => (
            NetworkTimeout,
            "another transaction held the key or its row for longer than half the command timeout",
        ),
        // The text depends on the language of the server.
        "57014" if text.contains("statement timeout") => {
            (NetworkTimeout, "statement_timeout ended the statement: raise it for this user")
        }
        "57014" => (ServiceUnavailable, "the server canceled the statement: try again"),
        "57P03" => return said(ServiceUnavailable, ": wait until it is up"),
        "57P04" => (InvalidArgument, "the database was dropped"),
        "58P01" | "58P02" => (Internal, "a file of the server is missing"),
        "08P01" if text.contains("startup parameter") => {
            return said(
                InvalidArgument,
                ": let the pooler ignore it, with ignore_startup_parameters in PgBouncer",
            );
        }
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" => return said(ServiceUnavailable, ""),
            "28" => return said(AuthFailed, ": check user, password and pg_hba.conf"),
            "40" => (ServiceUnavailable, "conflicts with other transactions outlasted the retries"),
            "53" => return said(RateLimited, ""),
            "55" => return said(ServiceUnavailable, ""),
            "57" => (ServiceUnavailable, "the server ended the session: try again"),
            "58" => (ServiceUnavailable, "the server cannot use its disk or memory"),
            "72" => (ServiceUnavailable, "the snapshot is too old: try again"),
            _ => {
                return (Internal, format!("the server failed unexpectedly (SQLSTATE {sqlstate})"));
            }
        },
    };
    (code, message.to_owned())
}

/// Whether a prepared statement no longer fits the tables. The code alone says only that something is
/// not supported.
fn is_stale_plan(error: &dyn DatabaseError) -> bool {
    let routine = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::routine);
    routine == Some("RevalidateCachedQuery") || error.message().contains("cached plan")
}

#[cfg(test)]
mod tests;

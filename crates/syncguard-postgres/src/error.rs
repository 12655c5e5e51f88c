//! What an error of the driver means: one table.

mod cause;

use std::io;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use syncguard_core::{Error, ErrorCode, Operation};

pub(crate) use self::cause::Cause;
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

/// Whether the server undid the statement only because of others, so that it can be sent again.
///
/// 54000 says that the notification queue was full at the commit of a release. The statement checks
/// the queue before it notifies, so it sends nothing the next time.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01" | "54000"))
}

/// Whether the server refused a value of the statement, such as a key that its encoding lacks.
pub(crate) fn concerns_a_value(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

/// Whether another process was creating the same table or index.
pub(crate) fn is_creation_race(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("23505" | "42P07" | "42710"))
}

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
            // A key or a row that the tables do not take.
            "22021" | "22P05" | "23502" | "23505" | "23514",
        ) => Verdict::Keep,
        Some(_) => Verdict::CloseAll,
    }
}

/// Whether an operation uses the table of leaders alone.
fn concerns_leaders(operation: Operation) -> bool {
    matches!(operation, Operation::Publish | Operation::Published | Operation::Withdraw)
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

pub(crate) fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error().and_then(DatabaseError::code)?;
    Some(code.into_owned())
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
mod tests {
    use std::borrow::Cow;
    use std::error::Error as StdError;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Refusal(&'static str);

    impl fmt::Display for Refusal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Key (key)=(secret-key) already exists")
        }
    }

    impl StdError for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            "secret-key"
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(self.0))
        }
        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    fn refusal(sqlstate: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Refusal(sqlstate)))
    }

    #[test]
    fn e1_codes_by_sqlstate() {
        use ErrorCode::{
            AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
        };
        let table = [
            (&["42P01", "42703", "42804", "42P10", "3D000", "3F000"][..], InvalidArgument),
            (&["22021", "22P05", "23505", "26000", "42P05", "57P04"], InvalidArgument),
            (&["23502", "23514", "22023", "42704"], InvalidArgument),
            (&["28000", "28P01", "42501"], AuthFailed),
            (&["53000", "53100", "53200", "53300", "53400", "54000"], RateLimited),
            (&["25P04", "55P03"], NetworkTimeout),
            (&["08000", "08003", "08006", "08P01", "25006", "25P02", "25P03"], ServiceUnavailable),
            (&["40001", "40P01", "40003", "55000", "57014"], ServiceUnavailable),
            (&["57P01", "57P02", "57P03", "57P05", "58030", "72000"], ServiceUnavailable),
            (&["XX000", "XX001", "22003", "42601", "0A000", "58P01", "", "\u{fc}"], Internal),
        ];
        for (sqlstates, code) in table {
            for sqlstate in sqlstates {
                let error = classify(Operation::Acquire, &Names::default(), refusal(sqlstate));
                assert_eq!(error.code(), code, "{sqlstate}");
                assert!(error.source().is_some());
            }
        }
    }

    #[test]
    fn e1_codes_by_kind_of_driver_error() {
        use ErrorCode::{Internal, InvalidArgument, NetworkTimeout, ServiceUnavailable};
        let io = |kind| sqlx::Error::Io(io::Error::from(kind));
        let table = [
            (io(io::ErrorKind::ConnectionRefused), ServiceUnavailable),
            (io(io::ErrorKind::ConnectionReset), ServiceUnavailable),
            (io(io::ErrorKind::UnexpectedEof), ServiceUnavailable),
            (io(io::ErrorKind::TimedOut), NetworkTimeout),
            (sqlx::Error::PoolTimedOut, ServiceUnavailable),
            (sqlx::Error::PoolClosed, ErrorCode::Aborted),
            (sqlx::Error::WorkerCrashed, ServiceUnavailable),
            (sqlx::Error::Configuration("port".into()), InvalidArgument),
            (sqlx::Error::InvalidArgument("bad".into()), InvalidArgument),
            (sqlx::Error::Tls("no TLS".into()), InvalidArgument),
            (sqlx::Error::Encode("text".into()), InvalidArgument),
            (sqlx::Error::Decode("text".into()), Internal),
            (sqlx::Error::RowNotFound, Internal),
            (sqlx::Error::Protocol("bad".into()), ServiceUnavailable),
            (sqlx::Error::BeginFailed, Internal),
        ];
        for (error, code) in table {
            let name = error.to_string();
            assert_eq!(classify(Operation::Get, &Names::default(), error).code(), code, "{name}");
        }
    }

    #[test]
    fn k4_an_error_quotes_no_value() {
        for sqlstate in ["22021", "22P02", "22P05", "23503", "42601", "P0001", "XX000"] {
            let error = classify(Operation::Acquire, &Names::default(), refusal(sqlstate));
            let text = format!("{error} {error:?} {}", error.source().unwrap());
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn f2_only_listed_errors_leave_a_connection_in_use() {
        let of = |sqlstate| verdict(Operation::Acquire, &refusal(sqlstate));
        for sqlstate in ["40001", "40P01", "54000", "55P03", "57014", "22021", "23505"] {
            assert_eq!(of(sqlstate), Verdict::Keep, "{sqlstate}");
        }
        for sqlstate in ["25006", "0A000", "26000", "42501", "42P01", "57P01", "XX000", "", "ZZZZZ"]
        {
            assert_eq!(of(sqlstate), Verdict::CloseAll, "{sqlstate}");
        }
        for error in [sqlx::Error::Protocol("bad".into()), sqlx::Error::Decode("bad".into())] {
            assert_eq!(verdict(Operation::Acquire, &error), Verdict::Close);
        }
    }

    #[test]
    fn a_missing_table_of_leaders_leaves_connections_in_use_and_is_named() {
        for operation in [Operation::Publish, Operation::Published, Operation::Withdraw] {
            for sqlstate in ["42P01", "42501"] {
                assert_eq!(verdict(operation, &refusal(sqlstate)), Verdict::Keep, "{sqlstate}");
            }
            assert_eq!(verdict(operation, &refusal("25006")), Verdict::CloseAll);
            let error = classify(operation, &Names::default(), refusal("42P01"));
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            let text = error.to_string();
            assert!(text.contains("syncguard_leaders") && text.contains("setup_schema"), "{text}");
        }
    }

    #[test]
    fn only_undone_statements_are_repeated() {
        for undone in ["40001", "40P01", "54000"] {
            assert!(is_conflict(&refusal(undone)), "{undone}");
        }
        for open in ["40003", "54001", "57P01", "55P03", "08006"] {
            assert!(!is_conflict(&refusal(open)), "{open}");
        }
        assert!(!is_conflict(&sqlx::Error::PoolTimedOut));
    }
}

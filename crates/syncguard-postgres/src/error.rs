//! From the driver's errors to the codes of the contract: one table.

use std::io;

use sqlx::error::DatabaseError;
use syncguard_core::{Error, ErrorCode, Operation};

use crate::tables::Tables;

/// What a caller can do about an error of the driver, by its kind and by SQLSTATE.
///
/// The driver's own error stays the source. Its text may quote keys, so it is not repeated here.
pub(crate) fn classify(operation: Operation, tables: &Tables, error: sqlx::Error) -> Error {
    if sqlstate(&error).as_deref() == Some("42P01") {
        return Error::new(ErrorCode::InvalidArgument, operation)
            .with_message(missing(tables))
            .with_source(error);
    }
    let (code, message) = match &error {
        sqlx::Error::Database(error) => by_sqlstate(&error.code().unwrap_or_default()),
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            (ErrorCode::NetworkTimeout, "the server did not answer")
        }
        sqlx::Error::Io(_) => (ErrorCode::ServiceUnavailable, "the connection was refused or lost"),
        sqlx::Error::PoolTimedOut => (ErrorCode::ServiceUnavailable, NO_CONNECTION),
        sqlx::Error::PoolClosed => (ErrorCode::ServiceUnavailable, "the pool is closed"),
        sqlx::Error::WorkerCrashed => (ErrorCode::ServiceUnavailable, "the driver has stopped"),
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            (ErrorCode::InvalidArgument, "the connection options are wrong")
        }
        sqlx::Error::Tls(_) => {
            (ErrorCode::InvalidArgument, "the TLS options do not fit the server")
        }
        sqlx::Error::Encode(_) => (ErrorCode::InvalidArgument, "a value cannot be sent"),
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound => (ErrorCode::Internal, "an answer that cannot be read"),
        // Such as what stands between the two answers for a server that is just starting.
        sqlx::Error::Protocol(_) => {
            (ErrorCode::ServiceUnavailable, "the server and the driver misunderstood each other")
        }
        _ => (ErrorCode::Internal, "an unknown error of the driver"),
    };
    Error::new(code, operation).with_message(message).with_source(error)
}

/// No connection in time says nothing about a lease: it stands until its expiry.
pub(crate) const NO_CONNECTION: &str = "no connection became free or could be opened in time; \
    the server may be down, or the pool too small";

/// The statement got no answer in time. It may still be carried out.
pub(crate) fn timed_out(operation: Operation) -> Error {
    Error::new(ErrorCode::NetworkTimeout, operation)
        .with_message("the server did not answer in time")
}

/// Whether the statement was undone only because of others, so that it can be sent again as it is.
///
/// 54000 says that the queue of notifications was full at the commit of a release, which looks at it
/// before it notifies: the next time it tells nobody.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("40001" | "40P01" | "54000"))
}

/// Whether another process was creating the same table or index.
pub(crate) fn is_creation_race(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("23505" | "42P07" | "42710"))
}

fn missing(tables: &Tables) -> String {
    let Tables { locks, fences, .. } = tables;
    format!(
        "the table {locks} or {fences} does not exist: call PostgresBackend::setup_schema, or run \
         what schema_sql returns"
    )
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error().and_then(DatabaseError::code)?;
    Some(code.into_owned())
}

/// The table. What is not in it is [`ErrorCode::Internal`].
fn by_sqlstate(sqlstate: &str) -> (ErrorCode, &'static str) {
    use ErrorCode::{
        AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
    };
    match sqlstate {
        "23502" | "23514" | "42703" | "42804" | "42P10" => {
            (InvalidArgument, "the tables have another shape")
        }
        "3D000" | "3F000" => (InvalidArgument, "the database or schema does not exist"),
        "22021" | "22P05" => {
            (InvalidArgument, "the encoding of the database lacks a character of the key")
        }
        "23505" => (InvalidArgument, "the lock id is in use for another key"),
        "26000" | "42P05" => (
            InvalidArgument,
            "a pooler does not keep prepared statements: set statement_cache_capacity to 0",
        ),
        "25P02" => (InvalidArgument, "the transaction has failed already"),
        "42501" => (AuthFailed, "a permission is missing"),
        "25006" => (ServiceUnavailable, "the server is read-only"),
        "25P03" => (ServiceUnavailable, "the transaction was idle for too long"),
        "25P04" | "55P03" | "57014" => {
            (NetworkTimeout, "a time limit ended the statement on the server")
        }
        "57P04" => (InvalidArgument, "the database was dropped"),
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" => (ServiceUnavailable, "the connection failed"),
            "28" => (AuthFailed, "the server refused the credentials"),
            "40" => (ServiceUnavailable, "conflicts with other transactions outlasted the retries"),
            "53" => (RateLimited, "the server has too many connections, or no memory or disk left"),
            "57" => {
                (ServiceUnavailable, "the server ended the connection, or is starting or stopping")
            }
            "58" => (ServiceUnavailable, "the server's system failed"),
            _ => (Internal, "an unexpected error of the server"),
        },
    }
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
            (&["22021", "22P05", "23505", "26000", "42P05", "25P02", "57P04"], InvalidArgument),
            (&["23502", "23514"], InvalidArgument),
            (&["28000", "28P01", "42501"], AuthFailed),
            (&["53000", "53100", "53200", "53300", "53400"], RateLimited),
            (&["25P04", "55P03", "57014"], NetworkTimeout),
            (&["08000", "08003", "08006", "08P01", "25006", "25P03"], ServiceUnavailable),
            (&["40001", "40P01", "40003"], ServiceUnavailable),
            (&["57P01", "57P02", "57P03", "57P05", "58030"], ServiceUnavailable),
            (&["XX000", "XX001", "22003", "42601", "0A000", "", "\u{fc}"], Internal),
        ];
        for (sqlstates, code) in table {
            for sqlstate in sqlstates {
                let error = classify(Operation::Acquire, &Tables::default(), refusal(sqlstate));
                assert_eq!(error.code(), code, "{sqlstate}");
                assert!(!error.to_string().contains("secret"), "{error}");
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
            (sqlx::Error::PoolClosed, ServiceUnavailable),
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
            assert_eq!(classify(Operation::Get, &Tables::default(), error).code(), code, "{name}");
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

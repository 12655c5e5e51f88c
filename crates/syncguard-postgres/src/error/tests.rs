//! The codes of errors, and what they leave of a connection.

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
    for sqlstate in ["25006", "0A000", "26000", "42501", "42P01", "57P01", "XX000", "", "ZZZZZ"] {
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

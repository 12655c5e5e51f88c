//! Why a connection could not be opened.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;
use syncguard_core::{Error, ErrorCode, Operation};

use crate::error::{Cause, judge, sqlstate};

/// A failure to open a connection, with the address and the cause.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    code: ErrorCode,
    message: String,
    cause: Option<Arc<Cause>>,
    is_full: bool,
}

impl Refusal {
    pub(crate) fn new(options: &PgConnectOptions, error: sqlx::Error) -> Self {
        let is_full = sqlstate(&error).is_some_and(|code| code.starts_with("53"));
        let (code, what) = match &error {
            sqlx::Error::Io(error) => by_io_error(options, error),
            error => judge(error),
        };
        Self {
            code,
            message: format!("no connection to {}: {what}", address(options)),
            cause: Some(Arc::new(Cause::new(error))),
            is_full,
        }
    }

    pub(crate) fn timed_out(options: &PgConnectOptions) -> Self {
        Self {
            code: ErrorCode::NetworkTimeout,
            message: format!(
                "no connection to {} in time: check that the server is up and that the network lets \
                 packets through, or raise command_timeout",
                address(options)
            ),
            cause: None,
            is_full: false,
        }
    }

    /// The task that was to open it has gone.
    pub(crate) fn interrupted() -> Self {
        Self {
            code: ErrorCode::ServiceUnavailable,
            message: "the runtime that was opening a connection has ended: try again".to_owned(),
            cause: None,
            is_full: false,
        }
    }

    /// Whether the server has no room for another connection, while those that are open work.
    pub(crate) const fn is_full(&self) -> bool {
        self.is_full
    }

    pub(crate) fn into_error(self, operation: Operation) -> Error {
        let error = Error::new(self.code, operation).with_message(self.message);
        match self.cause {
            Some(cause) => error.with_source(cause as Arc<dyn StdError + Send + Sync>),
            None => error,
        }
    }
}

/// The address, the database and the user, but no secret.
fn address(options: &PgConnectOptions) -> String {
    let server = match options.get_socket() {
        Some(socket) => format!("the socket in {}", socket.display()),
        None if options.get_host().contains(':') => {
            format!("[{}]:{}", options.get_host(), options.get_port())
        }
        None if options.get_host().starts_with('/') => {
            format!("the socket of port {} in {}", options.get_port(), options.get_host())
        }
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    format!("Postgres at {server} (database {database}, user {})", options.get_username())
}

fn by_io_error(options: &PgConnectOptions, error: &io::Error) -> (ErrorCode, String) {
    let over_tcp = options.get_socket().is_none() && !options.get_host().starts_with('/');
    match error.kind() {
        // How rustls reports what it does not accept, from within the handshake.
        io::ErrorKind::InvalidData => (
            ErrorCode::InvalidArgument,
            format!(
                "the TLS handshake failed ({error}): check sslmode, sslrootcert and the host name in \
                 the server's certificate"
            ),
        ),
        io::ErrorKind::NotFound if over_tcp => (
            ErrorCode::InvalidArgument,
            "a file that the TLS options name does not exist: check sslrootcert, sslcert and sslkey"
                .to_owned(),
        ),
        io::ErrorKind::PermissionDenied if over_tcp => (
            ErrorCode::InvalidArgument,
            "a file that the TLS options name cannot be read: check its permissions".to_owned(),
        ),
        io::ErrorKind::InvalidInput => {
            (ErrorCode::InvalidArgument, format!("the address is not valid ({error})"))
        }
        io::ErrorKind::TimedOut => (ErrorCode::NetworkTimeout, error.to_string()),
        _ => (
            ErrorCode::ServiceUnavailable,
            format!("{error}: check that the server is up and listens there"),
        ),
    }
}

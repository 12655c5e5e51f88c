//! The error type of all SyncGuard crates, and the codes that callers match on.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::{Fingerprint, Operation};

/// A `Result` whose error is by default the [`Error`] of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what kind of failure an [`Error`] is, so that callers can match on it.
///
/// Contention alone is not a failure: an attempt on a key that another caller holds returns
/// [`Acquired::Held`](crate::Acquired::Held).
///
/// # What the caller does
///
/// | code | what to do |
/// |---|---|
/// | [`Aborted`](Self::Aborted) | Stop. Your own code cancelled the operation. |
/// | [`AcquisitionTimeout`](Self::AcquisitionTimeout) | Skip the work or try later. Another caller holds the key. |
/// | [`AuthFailed`](Self::AuthFailed) | Correct the credentials or the permissions. A retry fails again. |
/// | [`FenceRegression`](Self::FenceRegression) | Stop and alert a person. The store has lost newer data, so it grants keys that others may hold. |
/// | [`Internal`](Self::Internal) | Report it, with its source. The stored data or the server did something unexpected. |
/// | [`InvalidArgument`](Self::InvalidArgument) | Correct the argument, the configuration or the tables. The message says which. |
/// | [`Lost`](Self::Lost) | Stop the work and do not write its result: another holder may already work on the key. |
/// | [`NetworkTimeout`](Self::NetworkTimeout) | Retry after a pause. The server may have carried out the operation, so a caller of [`Backend`](crate::Backend) repeats it with the same lock id, or releases by that id. |
/// | [`RateLimited`](Self::RateLimited) | Retry after a pause, with fewer requests, or raise the quota. |
/// | [`ServiceUnavailable`](Self::ServiceUnavailable) | Retry after a pause, and alert if it lasts. Never treat it as a free or as a held key. |
///
/// The lock manager in the `syncguard` crate retries the last three by itself, until the wait limit.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Error, ErrorCode};
///
/// fn http_status(error: &Error) -> u16 {
///     match error.code() {
///         ErrorCode::AcquisitionTimeout => 409,
///         code if code.is_transient() => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The caller cancelled the operation.
    Aborted,
    /// The key was held by others until the wait limit or the retries were used up.
    AcquisitionTimeout,
    /// The credentials are bad or missing, or a permission is missing.
    AuthFailed,
    /// The store granted a fence that is not higher than one this process has already seen.
    FenceRegression,
    /// Stored data cannot be read, or the failure fits no other code.
    Internal,
    /// The key, lock id, TTL, configuration or request is bad, or tables are missing.
    InvalidArgument,
    /// The lease ended while the work still ran.
    Lost,
    /// No answer came in time. The server may still have carried out the operation.
    NetworkTimeout,
    /// A quota is used up, there are too many connections, or the server has no memory for writes.
    RateLimited,
    /// The server is down, starting or read-only, or it cannot be reached.
    ServiceUnavailable,
}

impl ErrorCode {
    /// Returns the name of the code. Codes that other SyncGuard clients know have the same name there.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "Aborted",
            Self::AcquisitionTimeout => "AcquisitionTimeout",
            Self::AuthFailed => "AuthFailed",
            Self::FenceRegression => "FenceRegression",
            Self::Internal => "Internal",
            Self::InvalidArgument => "InvalidArgument",
            Self::Lost => "Lost",
            Self::NetworkTimeout => "NetworkTimeout",
            Self::RateLimited => "RateLimited",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    /// Returns whether the same request may succeed a moment later, because the server was
    /// unavailable, too slow or too busy.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::NetworkTimeout | Self::RateLimited | Self::ServiceUnavailable)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Says why a lock operation failed: a code to match on, the operation, the key, and the cause.
///
/// Keys and lock ids appear only as fingerprints, so an error can be logged as it is (K4). `Display`
/// writes one line without the cause. [`source`](StdError::source) returns the cause, such as the
/// error of the driver. A clone shares the cause with the original.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Error, ErrorCode, Key, Operation};
///
/// let key = Key::new("payment:42")?;
/// let error = Error::new(ErrorCode::ServiceUnavailable, Operation::Acquire)
///     .with_key(&key)
///     .with_message("the server is loading its data");
///
/// assert!(error.is_transient());
/// assert_eq!(
///     error.to_string(),
///     "acquire of key 602228725e82081670294dde: ServiceUnavailable: the server is loading its data",
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    code: ErrorCode,
    operation: Operation,
    pub(crate) key: Option<Fingerprint>,
    pub(crate) id: Option<Fingerprint>,
    message: Option<Cow<'static, str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error with this code, in this operation.
    #[must_use]
    pub const fn new(code: ErrorCode, operation: Operation) -> Self {
        Self { code, operation, key: None, id: None, message: None, source: None }
    }

    /// Adds a message that says what happened and what to do. It must not contain a key or a lock id.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Changes the operation, for input that was parsed before the operation was known.
    #[must_use]
    pub const fn with_operation(mut self, operation: Operation) -> Self {
        self.operation = operation;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Returns the message that says what happened and what to do, if there is one.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns what kind of failure this is.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the operation that failed.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// Returns the fingerprint of the key, if the operation had one.
    #[must_use]
    pub const fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// Returns the fingerprint of the lock id, if the operation had only the id.
    #[must_use]
    pub const fn id(&self) -> Option<Fingerprint> {
        self.id
    }

    /// Returns whether the same request may succeed a moment later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        self.code.is_transient()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        match (self.key, self.id) {
            (Some(key), _) => write!(f, " of key {key}")?,
            (None, Some(id)) => write!(f, " of lock id {id}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.code)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

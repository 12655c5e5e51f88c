//! Which error code a failure of the SDK or of Firestore is. The table is in the crate's docs.

mod cause;

use std::error::Error as StdError;
use std::io;

use gcloud_sdk::error::{Error as SdkError, ErrorKind};
use gcloud_sdk::tonic::{Code, Status, TimeoutExpired, transport};
use syncguard_core::{Error, ErrorCode, Operation};

use self::cause::Cause;

/// Why a request has no answer that can be used.
pub(crate) enum Failure {
    Status(Status),
    /// The reply was cut short.
    Incomplete,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failure> for Error {
    fn from(request: Failure) -> Self {
        match request {
            Failure::Status(status) => classify(&status),
            Failure::Incomplete => failure(ErrorCode::ServiceUnavailable)
                .with_message("the reply of Firestore was cut short: try again"),
        }
    }
}

/// Returns the error for a failed call. [`crate::FirestoreBackend`] adds the operation.
fn classify(status: &Status) -> Error {
    let code = code_of(status);
    let error = failure(code).with_source(Cause::of(status));
    match advice(status) {
        Some(advice) => error.with_message(advice),
        None => error,
    }
}

/// Returns whether the connection on which a call failed can be used for the next one.
///
/// Only the listed answers of the server leave it in use. All others may be about the connection, or
/// about the server that it leads to.
pub(crate) fn keeps_connection(status: &Status) -> bool {
    is_answer(status)
        && matches!(
            status.code(),
            Code::Ok
                | Code::Aborted
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::ResourceExhausted
        )
}

/// Returns whether the server refused a commit because a document is not as it was read, or because
/// others were at work on it. Nothing was written then.
///
/// Firestore and its emulators differ in which of these codes they give to which precondition.
pub(crate) fn is_refusal(status: &Status) -> bool {
    is_answer(status)
        && matches!(
            status.code(),
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition | Code::NotFound
        )
}

/// Makes an error for stored data that no SyncGuard client writes.
pub(crate) fn corrupt(what: &'static str) -> Error {
    failure(ErrorCode::Internal).with_message(what)
}

/// Makes an error whose operation is not known here.
pub(crate) const fn failure(code: ErrorCode) -> Error {
    Error::new(code, Operation::Connect)
}

/// Returns the error for credentials that could not be found or read, or that gave no token.
pub(crate) fn credentials_error(error: &SdkError) -> Error {
    let code = code_of_sdk(error.kind());
    let message = match error.kind() {
        ErrorKind::CryptoProviderMissing => {
            "the credentials sign with a private key: turn on the feature auth-default-crypto, or \
             install a rustls CryptoProvider"
        }
        _ if code == ErrorCode::AuthFailed => {
            "no token for the credentials: check the file that GOOGLE_APPLICATION_CREDENTIALS names, \
             or run `gcloud auth application-default login` again"
        }
        _ => "the server that issues tokens cannot be reached: check the network",
    };
    failure(code).with_message(message).with_source(Cause::chain(error))
}

/// Returns the error for a connection that could not be made.
pub(crate) fn connect_error(error: &transport::Error, whereto: &str) -> Error {
    if has_bad_certificate(error) {
        return failure(ErrorCode::InvalidArgument)
            .with_message(format!(
                "the certificate of {whereto} cannot be verified: check the address, and whether a \
                 proxy stands between that presents its own certificate"
            ))
            .with_source(Cause::chain(error));
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    failure(ErrorCode::ServiceUnavailable)
        .with_message(format!(
            "no connection to {whereto}: {innermost}: check the address, and that it can be reached"
        ))
        .with_source(Cause::chain(error))
}

/// Returns whether a status is what the server answered, not what failed on this side.
fn is_answer(status: &Status) -> bool {
    status.source().is_none()
}

/// Would a retry help? Then it is one of the transient codes.
fn code_of(status: &Status) -> ErrorCode {
    if let Some(source) = status.source() {
        return code_of_cause(status, source);
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => ErrorCode::AuthFailed,
        Code::DeadlineExceeded => ErrorCode::NetworkTimeout,
        Code::ResourceExhausted => ErrorCode::RateLimited,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => {
            ErrorCode::InvalidArgument
        }
        // Google's own clients try again after these. None of them is the caller's doing: a caller
        // that cancels drops the future.
        Code::Aborted | Code::Cancelled | Code::Internal | Code::Unavailable | Code::Unknown => {
            ErrorCode::ServiceUnavailable
        }
        Code::Ok
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => ErrorCode::Internal,
    }
}

/// A failure on this side of the connection comes as a status that wraps its cause. Its gRPC code is a
/// guess of the driver: `RESOURCE_EXHAUSTED` for a server that closes the connection with
/// `ENHANCE_YOUR_CALM`, for instance, which is no quota.
fn code_of_cause(status: &Status, source: &(dyn StdError + 'static)) -> ErrorCode {
    let mut cause = Some(source);
    while let Some(error) = cause {
        // The SDK boxes its error before it wraps it.
        let sdk = error
            .downcast_ref::<SdkError>()
            .or_else(|| Some(error.downcast_ref::<Box<SdkError>>()?));
        if let Some(sdk) = sdk {
            return code_of_sdk(sdk.kind());
        }
        if error.is::<TimeoutExpired>() {
            return ErrorCode::NetworkTimeout;
        }
        cause = error.source();
    }
    if has_bad_certificate(source) {
        ErrorCode::InvalidArgument
    } else if status.code() == Code::DeadlineExceeded {
        ErrorCode::NetworkTimeout
    } else {
        ErrorCode::ServiceUnavailable
    }
}

fn code_of_sdk(kind: &ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::Credentials(error) if error.is_transient() => ErrorCode::ServiceUnavailable,
        ErrorKind::Credentials(_)
        | ErrorKind::CredentialsBuild(_)
        | ErrorKind::CryptoProviderMissing
        | ErrorKind::IdTokenNeedsImpersonation(_)
        | ErrorKind::InvalidImpersonationUrl(_) => ErrorCode::AuthFailed,
        ErrorKind::Http(error) if error.is_timeout() => ErrorCode::NetworkTimeout,
        ErrorKind::Http(_) | ErrorKind::HttpStatus(_) | ErrorKind::GrpcStatus(_) => {
            ErrorCode::ServiceUnavailable
        }
        ErrorKind::HeaderValue(_)
        | ErrorKind::InvalidApiUrl(_)
        | ErrorKind::TonicMetadata(_)
        | ErrorKind::UrlError(_) => ErrorCode::InvalidArgument,
        _ => ErrorCode::Internal,
    }
}

fn has_bad_certificate(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // The source of an I/O error is that of the error inside.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inside.map_or_else(
            || error.downcast_ref::<rustls::Error>(),
            |inside| inside.downcast_ref::<rustls::Error>(),
        );
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What happened and what to do, if the code alone does not say it.
fn advice(status: &Status) -> Option<&'static str> {
    if !is_answer(status) {
        return None;
    }
    Some(match status.code() {
        Code::PermissionDenied => {
            "Firestore denied the request: grant the service account roles/datastore.user \
             (datastore.entities.*), and check that the Firestore API is enabled in the project"
        }
        Code::Unauthenticated => {
            "Firestore does not accept the credentials: check that they are valid and belong to the \
             project"
        }
        Code::NotFound => "the database does not exist: check the project and the database",
        Code::FailedPrecondition => {
            "Firestore cannot answer the request: check that the database is in Native mode, and that \
             there is an index on lockId"
        }
        Code::InvalidArgument => {
            "Firestore does not accept the request: check the project, the database and the \
             collections"
        }
        Code::ResourceExhausted => {
            "a quota of the project is used up: send fewer requests, or raise the quota"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

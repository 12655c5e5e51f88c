//! Which error code a failure of the SDK or of Firestore is. The table is in the crate's docs.

use std::error::Error as StdError;

use gcloud_sdk::error::ErrorKind;
use gcloud_sdk::tonic::{Code, Status, TimeoutExpired};
use syncguard_core::{Error, ErrorCode, Operation};

/// The error that a failed call is. The operation is named by [`crate::FirestoreBackend`].
pub(crate) fn classify(status: Status) -> Error {
    let code = code_of_status(&status);
    let error = failure(code).with_source(status);
    match code {
        ErrorCode::InvalidArgument => error.with_message(
            "Firestore does not take the request: check the project, the database, its mode, and \
             the index on lockId",
        ),
        _ => error,
    }
}

/// The error that a failure to set the client up is.
pub(crate) fn classify_setup(error: gcloud_sdk::error::Error) -> Error {
    failure(code_of_kind(error.kind())).with_source(error)
}

/// Whether the server refused a commit because a document is not as it was read, or because others
/// were at work on it. Nothing was written then.
///
/// Firestore and its emulators differ in which of these codes they give to which precondition.
pub(crate) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition | Code::NotFound
    )
}

/// What is stored is not what a SyncGuard client stores.
pub(crate) fn corrupt(what: &'static str) -> Error {
    failure(ErrorCode::Internal).with_message(what)
}

/// An error whose operation is not known here.
pub(crate) const fn failure(code: ErrorCode) -> Error {
    Error::new(code, Operation::Configure)
}

fn code_of_status(status: &Status) -> ErrorCode {
    // What fails on this side of the connection comes as a status that wraps the cause.
    let mut cause = status.source();
    while let Some(error) = cause {
        // The SDK boxes its error before it wraps it.
        let sdk = error
            .downcast_ref::<gcloud_sdk::error::Error>()
            .or_else(|| Some(error.downcast_ref::<Box<gcloud_sdk::error::Error>>()?));
        if let Some(sdk) = sdk {
            return code_of_kind(sdk.kind());
        }
        if error.is::<TimeoutExpired>() {
            return ErrorCode::NetworkTimeout;
        }
        cause = error.source();
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

fn code_of_kind(kind: &ErrorKind) -> ErrorCode {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gcloud_sdk::google_cloud_auth::errors::CredentialsError;
    use gcloud_sdk::{RequestTimeoutElapsed, error::Error as SdkError};

    use super::*;

    #[test]
    fn e1_every_grpc_code_is_mapped() {
        for (code, expected) in [
            (Code::Ok, ErrorCode::Internal),
            (Code::Cancelled, ErrorCode::ServiceUnavailable),
            (Code::Unknown, ErrorCode::ServiceUnavailable),
            (Code::InvalidArgument, ErrorCode::InvalidArgument),
            (Code::DeadlineExceeded, ErrorCode::NetworkTimeout),
            (Code::NotFound, ErrorCode::InvalidArgument),
            (Code::AlreadyExists, ErrorCode::Internal),
            (Code::PermissionDenied, ErrorCode::AuthFailed),
            (Code::ResourceExhausted, ErrorCode::RateLimited),
            (Code::FailedPrecondition, ErrorCode::InvalidArgument),
            (Code::Aborted, ErrorCode::ServiceUnavailable),
            (Code::OutOfRange, ErrorCode::Internal),
            (Code::Unimplemented, ErrorCode::Internal),
            (Code::Internal, ErrorCode::ServiceUnavailable),
            (Code::Unavailable, ErrorCode::ServiceUnavailable),
            (Code::DataLoss, ErrorCode::Internal),
            (Code::Unauthenticated, ErrorCode::AuthFailed),
        ] {
            let error = classify(Status::new(code, "any text at all"));
            assert_eq!(error.code(), expected, "{code:?}");
            let source = error.source().unwrap().downcast_ref::<Status>().unwrap();
            assert_eq!(source.code(), code);
        }
    }

    #[test]
    fn e1_a_refused_commit_is_known_by_its_code() {
        let refusals: Vec<_> = (0..=16)
            .map(Code::from_i32)
            .filter(|code| is_refusal(&Status::new(*code, "")))
            .collect();
        assert_eq!(
            refusals,
            [Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition, Code::Aborted]
        );
    }

    /// As tonic wraps what the layers under it return.
    fn wrapped(cause: impl StdError + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(cause))
    }

    #[test]
    fn e1_failures_on_this_side_are_known_by_their_type() {
        let credentials =
            |transient| SdkError::from(CredentialsError::from_msg(transient, "no token"));
        for (status, expected) in [
            (wrapped(credentials(false)), ErrorCode::AuthFailed),
            (wrapped(Box::new(credentials(false))), ErrorCode::AuthFailed),
            (wrapped(credentials(true)), ErrorCode::ServiceUnavailable),
            (wrapped(TimeoutExpired(())), ErrorCode::NetworkTimeout),
            (
                RequestTimeoutElapsed::Total(std::time::Duration::from_secs(5)).into(),
                ErrorCode::NetworkTimeout,
            ),
            (
                wrapped(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                ErrorCode::ServiceUnavailable,
            ),
        ] {
            assert_eq!(classify(status.clone()).code(), expected, "{status:?}");
        }
        let mut deep = Status::unknown("transport error");
        deep.set_source(Arc::new(credentials(false)));
        assert_eq!(classify(deep).code(), ErrorCode::AuthFailed);
    }

    #[test]
    fn e1_failures_to_set_up_are_known_by_their_kind() {
        let credentials = |transient| CredentialsError::from_msg(transient, "no token").into();
        for (kind, expected) in [
            (ErrorKind::CryptoProviderMissing, ErrorCode::AuthFailed),
            (ErrorKind::InvalidImpersonationUrl("?".into()), ErrorCode::AuthFailed),
            (ErrorKind::InvalidApiUrl("?".into()), ErrorCode::InvalidArgument),
            (ErrorKind::Credentials(credentials_error(false)), ErrorCode::AuthFailed),
        ] {
            assert_eq!(classify_setup(kind.into()).code(), expected);
        }
        assert_eq!(classify_setup(credentials(true)).code(), ErrorCode::ServiceUnavailable);
    }

    fn credentials_error(transient: bool) -> CredentialsError {
        CredentialsError::from_msg(transient, "no token")
    }
}

use std::sync::Arc;

use gcloud_sdk::RequestTimeoutElapsed;
use gcloud_sdk::google_cloud_auth::errors::CredentialsError;
use rustls::CertificateError;

use super::*;

fn all_codes() -> impl Iterator<Item = Code> {
    (0..=16).map(Code::from_i32)
}

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
        let error = classify(&Status::new(code, "any text at all"));
        assert_eq!(error.code(), expected, "{code:?}");
        let source = error.source().unwrap().to_string();
        assert!(source.contains(&format!("{code:?}")), "{source}");
    }
}

/// Firestore quotes the names of documents, which are keys.
#[test]
fn k4_the_text_of_the_server_is_not_part_of_an_error() {
    for code in all_codes() {
        let error = classify(&Status::new(code, "no entity to update: locks/secret-key"));
        let mut text = format!("{error} {error:?}");
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(" {error} {error:?}");
            cause = error.source();
        }
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn e1_a_refused_commit_is_known_by_its_code() {
    let refusals: Vec<_> = all_codes().filter(|code| is_refusal(&Status::new(*code, ""))).collect();
    assert_eq!(
        refusals,
        [Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition, Code::Aborted]
    );
    // The driver guesses a code for what fails on this side.
    let mut local = Status::aborted("transport error");
    local.set_source(Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
    assert!(!is_refusal(&local));
}

#[test]
fn f2_only_listed_answers_keep_the_connection() {
    let kept: Vec<_> =
        all_codes().filter(|code| keeps_connection(&Status::new(*code, ""))).collect();
    assert_eq!(
        kept,
        [
            Code::Ok,
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
        ]
    );
    for code in all_codes() {
        let mut local = Status::new(code, "transport error");
        local.set_source(Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(!keeps_connection(&local), "{code:?}");
    }
}

/// As tonic wraps what the layers under it return.
fn wrapped(cause: impl StdError + Send + Sync + 'static) -> Status {
    Status::from_error(Box::new(cause))
}

fn credentials(transient: bool) -> SdkError {
    SdkError::from(CredentialsError::from_msg(transient, "no token"))
}

#[test]
fn e1_failures_on_this_side_are_known_by_their_type() {
    for (status, expected) in [
        (wrapped(credentials(false)), ErrorCode::AuthFailed),
        (wrapped(Box::new(credentials(false))), ErrorCode::AuthFailed),
        (wrapped(credentials(true)), ErrorCode::ServiceUnavailable),
        (wrapped(TimeoutExpired(())), ErrorCode::NetworkTimeout),
        (
            RequestTimeoutElapsed::Total(std::time::Duration::from_secs(5)).into(),
            ErrorCode::NetworkTimeout,
        ),
        (wrapped(io::Error::from(io::ErrorKind::ConnectionReset)), ErrorCode::ServiceUnavailable),
        (wrapped(bad_certificate()), ErrorCode::InvalidArgument),
    ] {
        assert_eq!(classify(&status).code(), expected, "{status:?}");
    }
    let mut deep = Status::unknown("transport error");
    deep.set_source(Arc::new(credentials(false)));
    assert_eq!(classify(&deep).code(), ErrorCode::AuthFailed);
}

/// As tokio-rustls wraps what rustls finds.
fn bad_certificate() -> io::Error {
    let error = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The driver reports a server that closes the connection with `ENHANCE_YOUR_CALM` as
/// `RESOURCE_EXHAUSTED`.
#[test]
fn e1_a_connection_that_the_server_closes_is_no_quota() {
    let mut closed = Status::resource_exhausted("h2 protocol error");
    closed.set_source(Arc::new(io::Error::other("connection error received: too many pings")));
    assert_eq!(classify(&closed).code(), ErrorCode::ServiceUnavailable);
    assert!(!keeps_connection(&closed));
}

#[test]
fn e1_failures_of_credentials_are_known_by_their_kind() {
    let error = |kind: ErrorKind| credentials_error(&kind.into());
    for (kind, expected) in [
        (ErrorKind::CryptoProviderMissing, ErrorCode::AuthFailed),
        (ErrorKind::InvalidImpersonationUrl("?".into()), ErrorCode::AuthFailed),
        (ErrorKind::InvalidApiUrl("?".into()), ErrorCode::InvalidArgument),
    ] {
        assert_eq!(error(kind).code(), expected);
    }
    assert_eq!(credentials_error(&credentials(false)).code(), ErrorCode::AuthFailed);
    assert_eq!(credentials_error(&credentials(true)).code(), ErrorCode::ServiceUnavailable);
    assert_eq!(credentials_error(&credentials(true)).operation(), Operation::Connect);
}

//! E1: what an error says, and which errors are transient.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::error::Error as _;
use std::time::Duration;

use syncguard_core::{
    Error, ErrorCode, Fence, Key, KeySpace, LockId, Operation, Publication, Result, Ttl,
};

#[test]
fn e1_display_names_operation_key_and_code_and_leaves_the_source_to_source() {
    let key = Key::new("secret-key").unwrap();
    let error = Error::new(ErrorCode::Internal, Operation::Get)
        .with_key(&key)
        .with_source("connection reset");
    let text = error.to_string();
    assert_eq!(text, format!("get of key {}: Internal", key.fingerprint()));
    assert_eq!(error.source().unwrap().to_string(), "connection reset");
    assert!(!format!("{error:?}").contains("secret-key"));
}

#[test]
fn e1_a_clone_keeps_code_text_and_source() {
    let error = Error::new(ErrorCode::Lost, Operation::Hold).with_source("expired");
    let clone = error.clone();
    assert_eq!(clone.code(), ErrorCode::Lost);
    assert_eq!(clone.to_string(), error.to_string());
    assert_eq!(clone.source().unwrap().to_string(), "expired");
}

#[test]
fn e1_invalid_values_become_errors_through_the_question_mark() {
    fn fence() -> Result<Fence> {
        Ok("7".parse::<Fence>()?)
    }
    fn id() -> Result<LockId> {
        Ok("7".parse::<LockId>()?)
    }
    fn key() -> Result<Key> {
        Ok(Key::new("")?)
    }
    fn prefix() -> Result<KeySpace> {
        Ok(KeySpace::new("too-long", 10, 0)?)
    }
    fn publication() -> Result<Publication> {
        Ok(Publication::new(Fence::new(7)?, "a\0b", "")?)
    }
    fn ttl() -> Result<Ttl> {
        Ok(Duration::ZERO.try_into()?)
    }
    let errors = [
        fence().unwrap_err(),
        id().unwrap_err(),
        key().unwrap_err(),
        prefix().unwrap_err(),
        publication().unwrap_err(),
        ttl().unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.message().is_some());
    }
    let operations = errors.map(|error| error.operation().as_str());
    assert_eq!(operations, ["parse", "parse", "acquire", "configure", "publish", "acquire"]);
}

#[test]
fn e1_only_three_codes_are_transient() {
    let transient: Vec<_> = [
        ErrorCode::Aborted,
        ErrorCode::AcquisitionTimeout,
        ErrorCode::AuthFailed,
        ErrorCode::Internal,
        ErrorCode::InvalidArgument,
        ErrorCode::Lost,
        ErrorCode::NetworkTimeout,
        ErrorCode::RateLimited,
        ErrorCode::ServiceUnavailable,
    ]
    .into_iter()
    .filter(|code| code.is_transient())
    .map(ErrorCode::as_str)
    .collect();
    assert_eq!(transient, ["NetworkTimeout", "RateLimited", "ServiceUnavailable"]);
}

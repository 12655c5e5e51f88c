//! Firestore on a machine without credentials.

use std::time::Duration;

use libtest_mimic::Trial;
use syncguard::ErrorCode;
use syncguard_firestore::FirestoreBackend;

use crate::{Outcome, in_own_process};

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("credentials::e1_missing_credentials_are_auth_failed", || {
        // Without a file of credentials.
        let home = tempfile::tempdir()?;
        in_own_process(&["credentials"], &[("HOME", home.path()), ("APPDATA", home.path())])
    })]
}

pub(crate) async fn alone() -> Outcome {
    let builder = FirestoreBackend::builder().command_timeout(Duration::from_secs(3));
    let error = builder.connect("p").await.expect_err("there are no credentials");
    assert_eq!(error.code(), ErrorCode::AuthFailed, "{error}");
    assert!(error.to_string().contains("GOOGLE_APPLICATION_CREDENTIALS"), "{error}");
    Ok(())
}

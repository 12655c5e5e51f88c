//! The source of our errors: what is known of the cause, without what the server may quote.

use std::error::Error as StdError;
use std::fmt;

use gcloud_sdk::tonic::Status;

/// The cause of an error, without what the server wrote: it may quote document names, which are keys.
#[derive(Debug)]
pub(super) struct Cause(String);

impl Cause {
    pub(super) fn of(status: &Status) -> Self {
        match status.source() {
            // It was not the server who wrote this, so it quotes nothing that was sent.
            Some(cause) => Self::chain(cause),
            None => Self(format!("Firestore answered with the gRPC status {:?}", status.code())),
        }
    }

    pub(super) fn chain(error: &dyn StdError) -> Self {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

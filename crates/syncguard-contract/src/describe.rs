//! An error in one line.

use std::error::Error;

/// Formats an error and its causes in one line: for trials of your own.
pub fn describe(error: impl Into<Box<dyn Error + Send + Sync>>) -> String {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! What fred and the server report, as the codes of SyncGuard.

mod texts;

use std::borrow::Cow;

use fred::error::{Error as RedisError, ErrorKind};
use syncguard_core::{Error, ErrorCode, Operation};

use texts::{After, TEXTS, TLS};
pub(crate) use texts::{ENDED, NO_RUNTIME};

use After::{Keep, Replace};
use ErrorCode::{
    AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
};

const NO_ANSWER: &str = "no answer within the command timeout: the connection is replaced";

/// An error of fred, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
    after: After,
}

impl Fault {
    /// Judges an error of fred.
    pub(crate) fn of(error: &RedisError) -> Self {
        let text = inner_text(error.details());
        let row = TEXTS.iter().find(|(start, ..)| {
            let rest = text.strip_prefix(start);
            rest.is_some_and(|rest| rest.is_empty() || !rest.starts_with(char::is_alphanumeric))
        });
        if let Some((_, code, after, message)) = row {
            let message = match missing_permission(text) {
                Some(missing) if *code == AuthFailed => Cow::Owned(missing),
                _ => Cow::Borrowed(*message),
            };
            return Self { code: *code, message, after: *after };
        }
        let (code, message) = of_kind(error, text);
        Self { code, message: Cow::Borrowed(message), after: Replace }
    }

    /// No answer came in time.
    pub(crate) fn silence() -> Self {
        Self { code: NetworkTimeout, message: Cow::Borrowed(NO_ANSWER), after: Replace }
    }

    /// Whether the connection stays in use.
    pub(crate) fn keeps_connection(&self) -> bool {
        self.after == Keep
    }
}

fn of_kind(error: &RedisError, text: &str) -> (ErrorCode, &'static str) {
    if let Some((_, message)) = TLS.iter().find(|(part, _)| text.contains(part)) {
        return (InvalidArgument, message);
    }
    match error.kind() {
        ErrorKind::Auth => (AuthFailed, "the server refused the credentials"),
        ErrorKind::IO => (ServiceUnavailable, "the server cannot be reached"),
        ErrorKind::Canceled => (ServiceUnavailable, "the connection was replaced or lost"),
        ErrorKind::Routing => (ServiceUnavailable, "no server for the command"),
        ErrorKind::Cluster => (ServiceUnavailable, "the cluster's state has changed"),
        ErrorKind::Sentinel => {
            (ServiceUnavailable, "the sentinels name no server that accepts a connection")
        }
        ErrorKind::Timeout => (NetworkTimeout, NO_ANSWER),
        ErrorKind::Backpressure => (RateLimited, "the client has too many commands in flight"),
        ErrorKind::Config => (InvalidArgument, "the client's configuration is not valid"),
        ErrorKind::Url => (InvalidArgument, "the URL is not valid"),
        ErrorKind::InvalidCommand => (InvalidArgument, "the client cannot run commands"),
        ErrorKind::InvalidArgument => (InvalidArgument, "the command was refused"),
        #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
        ErrorKind::Tls => (InvalidArgument, "TLS cannot be used as configured"),
        ErrorKind::Protocol if text.starts_with("Invalid or missing cluster state") => {
            (ServiceUnavailable, "the cluster is down")
        }
        ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::NotFound => (
            Internal,
            "the answer cannot be read: check that the server speaks the protocol of Redis",
        ),
        // Also kinds that exist only with features of fred that another crate turned on.
        _ => (Internal, "the server or the client reports an error that is not classified"),
    }
}

/// Strips what a server puts before an error from inside a script, and the `ERR` that says nothing.
///
/// Redis 6 reports `ERR Error running script (call to f_..): @user_script:1: @user_script: 1: -OOM ..`.
fn inner_text(text: &str) -> &str {
    let mut text = match text.strip_prefix("ERR Error running script") {
        Some(rest) => rest.split_once("): ").map_or(text, |(_, inner)| inner),
        None => text,
    };
    while let Some(rest) = text.strip_prefix("@user_script:") {
        let rest = rest.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = rest.strip_prefix(": ") else { break };
        text = rest;
    }
    let text = text.strip_prefix('-').unwrap_or(text);
    text.strip_prefix("ERR ").unwrap_or(text)
}

/// Says which permission is missing, if the server does.
fn missing_permission(text: &str) -> Option<String> {
    if let Some((_, rest)) = text.split_once("permissions to run the '") {
        let command = rest.split('\'').next()?;
        Some(format!("the permission for the command {command} is missing: let the user run it"))
    } else if text.contains("permissions to access") {
        let what = if text.contains("channel") { "channels" } else { "keys" };
        Some(format!(
            "a permission for {what} is missing: let the user access all {what} with the prefix of the locks"
        ))
    } else {
        None
    }
}

/// The SyncGuard error for one of fred, which becomes its source.
pub(crate) fn classify(error: RedisError, operation: Operation) -> Error {
    let Fault { code, message, .. } = Fault::of(&error);
    Error::new(code, operation).with_message(message).with_source(redacted(error, &[]))
}

/// What is stored was not written by a SyncGuard client (E2).
pub(crate) fn unreadable(operation: Operation) -> Error {
    Error::new(Internal, operation).with_message(
        "what is stored under a key of this lock cannot be read: check what else uses the prefix",
    )
}

/// The cause of an error in a few words, for the message, if there is more than its kind.
pub(crate) fn detail(error: &RedisError) -> Option<&str> {
    let text = without_arguments(error.details()).trim();
    // An error of the operating system: `Os { code: 111, kind: .., message: "Connection refused" }`.
    let message = text.split_once("message: \"").and_then(|(_, rest)| rest.split('"').next());
    let text = message.unwrap_or(text);
    (!text.is_empty()).then_some(text)
}

/// The error without anything secret: the arguments that a server quotes, and these texts.
pub(crate) fn redacted(error: RedisError, secrets: &[&str]) -> RedisError {
    let details = error.details();
    let mut text = without_arguments(details).to_owned();
    // Shorter arguments are numbers and names of commands.
    for secret in secrets.iter().filter(|secret| secret.len() > 5) {
        text = text.replace(secret, "..");
    }
    if text == details { error } else { RedisError::new(error.kind().clone(), text) }
}

/// Cuts off the arguments of a command that the server does not know: it quotes keys and passwords.
fn without_arguments(text: &str) -> &str {
    text.split_once(", with args").map_or(text, |(start, _)| start)
}

#[cfg(test)]
mod tests;

//! What fred and the server report, as the codes of SyncGuard.

use std::borrow::Cow;

use fred::error::{Error as RedisError, ErrorKind};
use syncguard_core::{Error, ErrorCode, Operation};

use After::{Keep, Replace};
use ErrorCode::{
    AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
};

/// The reason of a connection that ended and for which fred gives none.
pub(crate) const ENDED: &str = "The connection ended.";

/// The reason of a call outside a runtime, in which fred would panic.
pub(crate) const NO_RUNTIME: &str = "There is no tokio runtime.";

const NO_ANSWER: &str = "no answer within the command timeout: the connection is replaced";

/// What happens to a connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// The connection stays in use: the error is about the request alone.
    Keep,
    /// The connection is replaced before the next command, and the topology is asked for again.
    Replace,
}

/// Errors that come as text, by the start of the text: those of the server in its own spelling,
/// those of our scripts, and the few of fred that have no kind of their own. They go before the
/// kinds. A leading `ERR` is left out.
///
/// Only what says [`Keep`] leaves a connection in use. Among the others are those of a server that
/// was demoted or cut off (`READONLY`, `NOREPLICAS`): another server may be the master now.
#[rustfmt::skip] // A table: one row a line.
const TEXTS: &[(&str, ErrorCode, After, &str)] = &[
    ("NOAUTH", AuthFailed, Replace, "the server requires a password: add it to the URL"),
    ("WRONGPASS", AuthFailed, Replace, "the user name or the password is wrong, or the user is disabled"),
    ("NOPERM", AuthFailed, Keep, "a permission is missing"),
    ("The user executing the script can't run", AuthFailed, Keep, "a permission is missing: let the user run all commands that the documentation of syncguard-redis lists"),
    ("The user executing the script can't access", AuthFailed, Keep, "a permission is missing: let the user access all keys with the prefix of the locks"),
    ("ACL failure in script:", AuthFailed, Keep, "a permission is missing"),
    ("DENIED", AuthFailed, Replace, "the server accepts connections from its own host only: set a password or turn its protected mode off"),
    ("AUTH <password> called without any password configured", AuthFailed, Replace, "the server has no password: remove it from the URL"),
    ("Client sent AUTH, but no password is set", AuthFailed, Replace, "the server has no password: remove it from the URL"),
    ("unknown command", InvalidArgument, Keep, "the server or a proxy before it does not allow a command"),
    ("Unknown Redis command called from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("Unknown command called from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("This Redis command is not allowed from", InvalidArgument, Keep, "the server does not allow a command that the scripts of locks need"),
    ("Error compiling script", InvalidArgument, Keep, "the server cannot run the scripts of locks: it must be Redis 6 or later, or compatible with it"),
    ("DB index is out of range", InvalidArgument, Replace, "the server has no database with the number in the URL"),
    ("invalid DB index", InvalidArgument, Replace, "the server has no database with the number in the URL"),
    ("SELECT is not allowed in cluster mode", InvalidArgument, Replace, "a cluster has database 0 only: remove the database from the URL"),
    ("This instance has cluster support disabled", InvalidArgument, Replace, "the server is no cluster: use a URL that begins with redis://"),
    ("NOPROTO", InvalidArgument, Replace, "the server does not speak RESP3: configure the client for RESP2"),
    ("LOADING", ServiceUnavailable, Replace, "the server is loading its data"),
    ("READONLY", ServiceUnavailable, Replace, "the server is a read-only replica"),
    ("MASTERDOWN", ServiceUnavailable, Replace, "the server is a replica that has lost its master"),
    ("NOREPLICAS", ServiceUnavailable, Replace, "the server has too few replicas to take writes"),
    ("MISCONF", ServiceUnavailable, Replace, "the server cannot persist its data, so it takes no writes: check its disk"),
    ("BUSY", ServiceUnavailable, Keep, "the server is busy with a script"),
    ("UNBLOCKED", ServiceUnavailable, Replace, "the server interrupted the command, because its role changed"),
    ("CLUSTERDOWN", ServiceUnavailable, Replace, "the cluster is down"),
    ("TRYAGAIN", ServiceUnavailable, Keep, "the cluster is moving these keys"),
    ("Too many redirections.", ServiceUnavailable, Keep, "the cluster is moving these keys"),
    ("MOVED", ServiceUnavailable, Replace, "the cluster has moved these keys"),
    ("ASK", ServiceUnavailable, Replace, "the cluster is moving these keys"),
    ("Script attempted to access a non local key", ServiceUnavailable, Replace, "the cluster is moving these keys"),
    ("Script attempted to execute a command while the cluster is down", ServiceUnavailable, Replace, "the cluster is down"),
    ("Script attempted to execute a write command while the cluster is down", ServiceUnavailable, Replace, "the cluster is down"),
    ("Too many failed write attempts.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Failed to route command.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Missing expected connection.", ServiceUnavailable, Replace, "the connection was lost"),
    (ENDED, ServiceUnavailable, Replace, "the connection was lost"),
    ("channel closed", ServiceUnavailable, Replace, "the connection was lost, or replaced because it no longer answered"),
    ("Failed to send command to router.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Client is not initialized.", ServiceUnavailable, Replace, "the connection was lost"),
    ("Missing primary address in response from sentinel node.", InvalidArgument, Replace, "the sentinels know no master with this name: check sentinelServiceName"),
    ("Failed to connect to all sentinel nodes.", ServiceUnavailable, Replace, "no sentinel accepts a connection with these credentials"),
    (NO_RUNTIME, InvalidArgument, Keep, "there is no tokio runtime: call this from inside one"),
    ("OOM", RateLimited, Keep, "the server is out of memory for writes: raise its maxmemory"),
    ("max number of clients", RateLimited, Replace, "the server has too many connections: raise its maxclients"),
    ("CROSSSLOT", InvalidArgument, Keep, "the server is a cluster: use a URL that begins with redis-cluster:// and a key prefix with a hash tag"),
    ("NOSCRIPT", Internal, Keep, "the server forgot a script that it was just sent"),
    ("WRONGTYPE", Internal, Keep, "a key of this lock holds a value of another type: check what else uses the prefix"),
    ("value is not an integer or out of range", Internal, Keep, "the fence counter of this key is no number: check what else uses the prefix"),
    ("SGRECORD", Internal, Keep, "the value under the lock key is no lock record: check what else uses the prefix"),
    ("SGINDEX", Internal, Keep, "the value under the id key does not name this lock: check what else uses the prefix"),
    ("SGFENCE", Internal, Keep, "the fence counter of this key is used up, or no counter"),
];

/// TLS failures that no retry cures, by what rustls reports. fred reports them as failures of the
/// connection.
#[rustfmt::skip] // A table: one row a line.
const TLS: &[(&str, &str)] = &[
    ("InvalidCertificate(", "the server's certificate cannot be verified: install the root of its certificate authority on this system, and connect by a name that the certificate has"),
    ("AlertReceived(", "the server refused the TLS handshake: check whether it requires a client certificate, and which versions of TLS it supports"),
    ("InvalidMessage(InvalidContentType)", "the server does not speak TLS on this port: use its TLS port, or a URL that begins with redis://"),
    ("InvalidDnsNameError", "the host in the URL is no name or address that a certificate can have"),
];

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
mod tests {
    use super::*;

    fn code(kind: ErrorKind, text: &'static str) -> &'static str {
        classify(RedisError::new(kind, text), Operation::Acquire).code().as_str()
    }

    #[test]
    fn e_errors_in_the_servers_own_spelling() {
        let rows: [(&str, &[&str]); 5] = [
            (
                "AuthFailed",
                &[
                    "NOAUTH Authentication required.",
                    "WRONGPASS invalid username-password pair or user is disabled.",
                    "NOPERM this user has no permissions to run the 'evalsha' command",
                    "DENIED Redis is running in protected mode because protected mode is enabled",
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
                    "ERR The user executing the script can't run this command or subcommand",
                    "ERR The user executing the script can't run this command or subcommand script: 9a1b, on @user_script:7.",
                    "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 9a1b, on @user_script:16.",
                    "ERR ACL failure in script: User partial has no permissions to run the 'incr' command",
                ],
            ),
            (
                "ServiceUnavailable",
                &[
                    "LOADING Redis is loading the dataset in memory",
                    "READONLY You can't write against a read only replica. script: 9a1b, on @user_script:39.",
                    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                    "NOREPLICAS Not enough good replicas to write.",
                    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
                    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                    "CLUSTERDOWN Hash slot not served",
                    "TRYAGAIN Multiple keys request during rehashing of slot",
                    "MOVED 3999 127.0.0.1:6381",
                    "ASK 3999 127.0.0.1:6381",
                    "ERR Script attempted to access a non local key in a cluster node script: 9a1b, on @user_script:7.",
                    "ERR Script attempted to execute a command while the cluster is down script: 9a1b, on @user_script:7.",
                    "ERR Script attempted to execute a write command while the cluster is down and readonly script: 9a1b, on @user_script:7.",
                ],
            ),
            (
                "RateLimited",
                &[
                    "OOM command not allowed when used memory > 'maxmemory'. script: 9a1b, on @user_script:39.",
                    "ERR max number of clients reached",
                    "ERR max number of clients + cluster connections reached",
                ],
            ),
            ("InvalidArgument", &["CROSSSLOT Keys in request don't hash to the same slot"]),
            (
                "Internal",
                &[
                    "WRONGTYPE Operation against a key holding the wrong kind of value script: 9a1b, on @user_script:12.",
                    "ERR value is not an integer or out of range",
                    "SGRECORD the value under the lock key is no lock record",
                    "SGINDEX the id key names another lock",
                    "SGFENCE the fence counter is out of range",
                    "BUSYKEY Target key name already exists.",
                    "NOSCRIPT No matching script. Please use EVAL.",
                ],
            ),
        ];
        for (expected, texts) in rows {
            for text in texts {
                // fred gives most of them no kind.
                assert_eq!(code(ErrorKind::Unknown, text), expected, "{text}");
            }
        }
    }

    #[test]
    fn e_errors_of_the_client() {
        for (expected, kind) in [
            ("AuthFailed", ErrorKind::Auth),
            ("ServiceUnavailable", ErrorKind::IO),
            ("ServiceUnavailable", ErrorKind::Canceled),
            ("ServiceUnavailable", ErrorKind::Routing),
            ("ServiceUnavailable", ErrorKind::Cluster),
            ("ServiceUnavailable", ErrorKind::Sentinel),
            ("NetworkTimeout", ErrorKind::Timeout),
            ("RateLimited", ErrorKind::Backpressure),
            ("InvalidArgument", ErrorKind::Config),
            ("InvalidArgument", ErrorKind::Url),
            ("InvalidArgument", ErrorKind::InvalidCommand),
            ("InvalidArgument", ErrorKind::InvalidArgument),
            ("Internal", ErrorKind::Parse),
            ("Internal", ErrorKind::Protocol),
            ("Internal", ErrorKind::NotFound),
            ("Internal", ErrorKind::Unknown),
        ] {
            assert_eq!(code(kind.clone(), "some text"), expected, "{kind:?}");
        }
        for text in [
            "Too many failed write attempts.",
            "Failed to route command.",
            "Missing expected connection.",
            "Failed to send command to router.",
            "Client is not initialized.",
        ] {
            assert_eq!(code(ErrorKind::Unknown, text), "ServiceUnavailable", "{text}");
        }
    }

    #[test]
    fn e_the_text_goes_before_the_kind() {
        let text = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(code(ErrorKind::InvalidArgument, text), "Internal");
    }

    #[test]
    fn e_a_cluster_client_on_a_single_server_is_misconfigured() {
        let text = "ERR This instance has cluster support disabled";
        assert_eq!(code(ErrorKind::Config, text), "InvalidArgument");
    }

    #[test]
    fn e1_the_source_is_kept() {
        let error = classify(RedisError::new(ErrorKind::IO, "reset"), Operation::Get);
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.downcast_ref::<RedisError>().is_some());
    }
}

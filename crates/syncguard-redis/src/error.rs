//! What fred and the server report, as the codes of SyncGuard.

use fred::error::{Error as RedisError, ErrorKind};
use syncguard_core::{Error, ErrorCode, Operation};

use ErrorCode::{
    AuthFailed, Internal, InvalidArgument, NetworkTimeout, RateLimited, ServiceUnavailable,
};

/// Of a connection of our own, which fred gives no reason for.
pub(crate) const ENDED: &str = "The connection ended.";

/// Errors that come as text, by how the text begins: the server's, in its own spelling, those of
/// our scripts, and the few of fred's that have no kind of their own. They go before the kinds.
#[rustfmt::skip] // A table: one row a line.
const TEXTS: &[(&str, ErrorCode, &str)] = &[
    ("NOAUTH", AuthFailed, "the server wants a password"),
    ("WRONGPASS", AuthFailed, "the user name or the password is wrong"),
    ("NOPERM", AuthFailed, "the user may not run these commands or use these keys"),
    ("DENIED", AuthFailed, "the server takes connections from its own host only"),
    ("ERR The user executing the script can't", AuthFailed, "the user may not run these commands or use these keys"),
    ("ERR ACL failure in script:", AuthFailed, "the user may not run these commands or use these keys"),
    ("ERR AUTH <password> called without any password configured", AuthFailed, "the server wants no password"),
    ("LOADING", ServiceUnavailable, "the server is loading its data"),
    ("READONLY", ServiceUnavailable, "the server is a read-only replica"),
    ("MASTERDOWN", ServiceUnavailable, "the replica has lost its master"),
    ("NOREPLICAS", ServiceUnavailable, "the server has too few replicas to take writes"),
    ("MISCONF", ServiceUnavailable, "the server cannot persist and takes no writes"),
    ("BUSY", ServiceUnavailable, "the server is busy with a script"),
    ("UNBLOCKED", ServiceUnavailable, "the server broke the command off"),
    ("CLUSTERDOWN", ServiceUnavailable, "the cluster is down"),
    ("TRYAGAIN", ServiceUnavailable, "the cluster is moving these keys"),
    ("MOVED", ServiceUnavailable, "the cluster has moved these keys"),
    ("ASK", ServiceUnavailable, "the cluster is moving these keys"),
    ("ERR Script attempted to access a non local key", ServiceUnavailable, "the cluster is moving these keys"),
    ("ERR Script attempted to execute a command while the cluster is down", ServiceUnavailable, "the cluster is down"),
    ("ERR Script attempted to execute a write command while the cluster is down", ServiceUnavailable, "the cluster is down"),
    ("Too many failed write attempts.", ServiceUnavailable, "there is no connection to the server"),
    ("Failed to route command.", ServiceUnavailable, "there is no connection to the server"),
    ("Missing expected connection.", ServiceUnavailable, "there is no connection to the server"),
    (ENDED, ServiceUnavailable, "the connection has ended"),
    ("Failed to send command to router.", ServiceUnavailable, "the client is not running"),
    ("Client is not initialized.", ServiceUnavailable, "the client is not running"),
    ("OOM", RateLimited, "the server is out of memory for writes"),
    ("ERR max number of clients", RateLimited, "the server has too many connections"),
    ("CROSSSLOT", InvalidArgument, "the keys of a lock do not share a slot of the cluster"),
    ("WRONGTYPE", Internal, "a stored value is of another type"),
    ("SGRECORD", Internal, "the value under the lock key is no lock record"),
    ("SGINDEX", Internal, "the value under the id key does not name this lock"),
    ("SGFENCE", Internal, "the fence counter of this key is used up, or no counter"),
];

/// The SyncGuard error for one of fred's, which becomes its source.
pub(crate) fn classify(error: RedisError, operation: Operation) -> Error {
    let (code, message) = judge(&error);
    Error::new(code, operation).with_message(message).with_source(error)
}

fn judge(error: &RedisError) -> (ErrorCode, &'static str) {
    let text = error.details();
    let row = TEXTS.iter().find(|(start, ..)| {
        let rest = text.strip_prefix(start);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    if let Some((_, code, message)) = row {
        return (*code, message);
    }
    match error.kind() {
        ErrorKind::Auth => (AuthFailed, "the server refused the credentials"),
        ErrorKind::IO => (ServiceUnavailable, "the server cannot be reached"),
        ErrorKind::Canceled => (ServiceUnavailable, "the client gave the command up"),
        ErrorKind::Routing => (ServiceUnavailable, "no server for the command"),
        ErrorKind::Cluster => (ServiceUnavailable, "the cluster's state has changed"),
        ErrorKind::Sentinel => (ServiceUnavailable, "the sentinels name no server"),
        ErrorKind::Timeout => (NetworkTimeout, "no answer in time"),
        ErrorKind::Backpressure => (RateLimited, "the client has too many commands in flight"),
        ErrorKind::Config => (InvalidArgument, "the client's configuration is not valid"),
        ErrorKind::Url => (InvalidArgument, "the URL is not valid"),
        ErrorKind::InvalidCommand => (InvalidArgument, "the client cannot run commands"),
        ErrorKind::InvalidArgument => (InvalidArgument, "the command was refused"),
        #[cfg(any(feature = "tls-rustls", feature = "tls-rustls-ring"))]
        ErrorKind::Tls => (InvalidArgument, "TLS cannot be used as configured"),
        ErrorKind::Parse | ErrorKind::Protocol | ErrorKind::NotFound => {
            (Internal, "the answer cannot be read")
        }
        ErrorKind::Unknown if text.starts_with("ERR ") => {
            (Internal, "the server cannot carry the command out")
        }
        // Also kinds that exist only with features of fred that somebody else turned on.
        _ => (Internal, "an error that is not classified"),
    }
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

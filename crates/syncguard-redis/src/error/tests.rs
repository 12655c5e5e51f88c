//! Errors of the server and of the client, and what may be seen of them.

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

#[test]
fn e_errors_from_inside_a_script_of_redis_6() {
    let inside = "ERR Error running script (call to f_1271fed6b06f437e667be3101ee19c5076ca9cc4): @user_script:1: ";
    for (text, expected) in [
        (
            "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
            "RateLimited",
        ),
        (
            "@user_script: 1: -READONLY You can't write against a read only replica.",
            "ServiceUnavailable",
        ),
        ("@user_script: 1: -NOREPLICAS Not enough good replicas to write.", "ServiceUnavailable"),
        (
            "@user_script: 1: The user executing the script can't run this command or subcommand",
            "AuthFailed",
        ),
        (
            "@user_script: 1: The user executing the script can't access at least one of the keys mentioned in the command arguments",
            "AuthFailed",
        ),
        ("@user_script: 1: Unknown Redis command called from Lua script", "InvalidArgument"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "Internal"),
    ] {
        let error = RedisError::new(ErrorKind::Unknown, format!("{inside}{text}"));
        assert_eq!(Fault::of(&error).code.as_str(), expected, "{text}");
    }
}

#[test]
fn f2_only_listed_errors_leave_a_connection_in_use() {
    let keeps =
        |kind, text: &'static str| Fault::of(&RedisError::new(kind, text)).keeps_connection();
    for text in [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "BUSY Redis is busy running a script.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "SGRECORD the value under the lock key is no lock record",
    ] {
        assert!(keeps(ErrorKind::Unknown, text), "{text}");
    }
    for text in [
        "READONLY You can't write against a read only replica.",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down",
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOAUTH Authentication required.",
        "UNBLOCKED force unblock from blocking operation",
        "CLUSTERDOWN Hash slot not served",
        "MOVED 3999 127.0.0.1:6381",
        "ERR something that nobody has heard of",
        "NEWCODE of a later version",
    ] {
        assert!(!keeps(ErrorKind::Unknown, text), "{text}");
    }
    for kind in [ErrorKind::IO, ErrorKind::Timeout, ErrorKind::Canceled, ErrorKind::Protocol] {
        assert!(!keeps(kind, "some text"));
    }
}

#[test]
fn e_a_certificate_that_cannot_be_verified_is_no_outage() {
    let text = "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }";
    let fault = Fault::of(&RedisError::new(ErrorKind::IO, text));
    assert_eq!(fault.code, InvalidArgument);
    assert!(fault.message.contains("certificate"), "{}", fault.message);
    // Through Sentinel, fred changes the kind.
    assert_eq!(Fault::of(&RedisError::new(ErrorKind::Sentinel, text)), fault);
}

#[test]
fn k4_what_a_server_quotes_is_cut_off() {
    let text = "ERR unknown command 'AUTH', with args beginning with: 'hunter2' ";
    let error = classify(RedisError::new(ErrorKind::Unknown, text), Operation::Connect);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let text = "ERR no such key 'syncguard:payment' or 'ESnTeidab-RJPmWy0DBYhQ'";
    let secrets = ["syncguard:payment", "ESnTeidab-RJPmWy0DBYhQ", "30000"];
    let error = redacted(RedisError::new(ErrorKind::Unknown, text), &secrets);
    assert_eq!(error.details(), "ERR no such key '..' or '..'");
}

#[test]
fn e1_a_missing_permission_is_named() {
    for (text, part) in [
        ("NOPERM this user has no permissions to run the 'evalsha' command", "evalsha"),
        ("NOPERM User p has no permissions to run the 'incr' command", "incr"),
        (
            "ERR ACL failure in script: User p has no permissions to run the 'incr' command script: on @user_script:1.",
            "incr",
        ),
        (
            "ERR ACL failure in script: No permissions to access a key script: on @user_script:1.",
            "keys",
        ),
        ("NOPERM No permissions to access a channel", "channels"),
    ] {
        let fault = Fault::of(&RedisError::new(ErrorKind::Unknown, text));
        assert_eq!(fault.code, AuthFailed, "{text}");
        assert!(fault.message.contains(part), "{text}: {}", fault.message);
    }
}

//! What the answers to a preflight mean for locks.

use fred::error::Error as RedisError;
use syncguard_core::{Finding, Level};

use crate::error::Fault;

/// A check that could not be made.
pub(super) fn unknown(check: &'static str, asked: &str, error: &RedisError) -> Finding {
    let reason = Fault::of(error).message;
    Finding::new(
        Level::Unknown,
        check,
        format!("the server does not answer {asked}: {reason}"),
        format!("check it by hand, or let the user run {asked}"),
    )
}

/// The value of a field of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

pub(super) fn version(info: &str) -> Finding {
    let (name, version) = match field(info, "valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", field(info, "redis_version").unwrap_or("of an unknown version")),
    };
    let fact = format!("the server is {name} {version}");
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major >= 6 => Finding::new(Level::Fine, "version", fact, ""),
        Some(_) => Finding::new(Level::Error, "version", fact, "update it to version 6.2 or later"),
        None => Finding::new(Level::Unknown, "version", fact, "check that it is 6.2 or later"),
    }
}

pub(super) fn cluster(info: &str, clustered: bool) -> Finding {
    match (field(info, "cluster_enabled"), clustered) {
        (Some("1"), false) => Finding::new(
            Level::Error,
            "cluster",
            "the server is a node of a cluster, and the client does not know that",
            "use a URL that begins with redis-cluster:// and a key prefix with a hash tag",
        ),
        (Some("1"), true) => Finding::new(
            Level::Fine,
            "cluster",
            "the server is a cluster, and all keys of a lock share a slot",
            "",
        ),
        (Some(_), _) => Finding::new(Level::Fine, "cluster", "the server is no cluster", ""),
        (None, _) => Finding::new(
            Level::Unknown,
            "cluster",
            "the server does not say whether it is a cluster",
            "if it is one, use a URL that begins with redis-cluster://",
        ),
    }
}

pub(super) fn role(info: &str) -> Finding {
    match field(info, "role") {
        Some("master") => Finding::new(Level::Fine, "role", "the server is a master", ""),
        Some(role) => Finding::new(
            Level::Error,
            "role",
            format!("the server is no master, but a {role}"),
            "connect to the master, or through Sentinel",
        ),
        None => Finding::new(
            Level::Unknown,
            "role",
            "the server does not say whether it is a master",
            "check that it is one",
        ),
    }
}

pub(super) fn eviction(info: &str) -> Finding {
    let check = "eviction-policy";
    let Some(policy) = field(info, "maxmemory_policy") else {
        let fact = "the server does not tell its maxmemory-policy";
        return Finding::new(Level::Unknown, check, fact, "check that it is noeviction");
    };
    let fact = format!("maxmemory-policy is {policy}");
    let level = match (policy, field(info, "maxmemory")) {
        ("noeviction", _) => return Finding::new(Level::Fine, check, fact, ""),
        // Without a limit, nothing is evicted.
        (_, Some("0")) => Level::Warning,
        _ => Level::Error,
    };
    let advice = "set it to noeviction: other policies delete leases that are live";
    Finding::new(level, check, fact, advice)
}

pub(super) fn persistence(info: &str, fsync: Result<String, RedisError>) -> Finding {
    let check = "persistence";
    match (field(info, "aof_enabled"), fsync) {
        (Some("0"), _) => Finding::new(
            Level::Warning,
            check,
            "there is no append-only file",
            "set appendonly to yes: a crash forgets leases and fence counters since the last snapshot",
        ),
        (Some(_), Ok(fsync)) if fsync == "always" => {
            Finding::new(Level::Fine, check, "every write is synced to disk", "")
        }
        (Some(_), Ok(fsync)) => Finding::new(
            Level::Warning,
            check,
            format!("appendfsync is {fsync}"),
            "set it to always if no fence may repeat: a crash loses the last writes",
        ),
        (Some(_), Err(error)) => unknown(check, "CONFIG GET", &error),
        (None, _) => Finding::new(
            Level::Unknown,
            check,
            "the server does not tell whether it persists its data",
            "check that it does",
        ),
    }
}

pub(super) fn replicas(info: &str, required: Result<String, RedisError>) -> Finding {
    let check = "min-replicas";
    let connected = field(info, "connected_slaves").and_then(|count| count.parse::<u32>().ok());
    match (connected, required) {
        (Some(0), _) => Finding::new(Level::Fine, check, "the server has no replicas", ""),
        (Some(count), Ok(required)) if required == "0" => Finding::new(
            Level::Warning,
            check,
            format!("the server has {count} replicas and takes writes without any"),
            "set min-replicas-to-write to 1 and min-replicas-max-lag to a few seconds: a master that \
             is cut off then grants no locks beside the new one",
        ),
        (Some(_), Ok(required)) => {
            let fact = format!("the server takes writes only with {required} replicas");
            Finding::new(Level::Fine, check, fact, "")
        }
        (Some(_), Err(error)) => unknown(check, "CONFIG GET", &error),
        (None, _) => Finding::new(
            Level::Unknown,
            check,
            "the server does not tell how many replicas it has",
            "set min-replicas-to-write if it has any",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_an_error() {
        for (info, level) in [
            ("redis_version:5.0.14\r\n", Level::Error),
            ("redis_version:6.2.14\r\n", Level::Fine),
            ("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n", Level::Fine),
            ("redis_version:unstable\r\n", Level::Unknown),
            ("", Level::Unknown),
        ] {
            assert_eq!(version(info).level(), level, "{info}");
        }
    }

    #[test]
    fn a_master_that_needs_no_replicas_to_write_is_a_warning() {
        let level = |info, required: &str| replicas(info, Ok(required.to_owned())).level();
        assert_eq!(level("connected_slaves:2\r\n", "0"), Level::Warning);
        assert_eq!(level("connected_slaves:2\r\n", "1"), Level::Fine);
        assert_eq!(level("connected_slaves:0\r\n", "0"), Level::Fine);
        assert_eq!(level("", "0"), Level::Unknown);
    }
}

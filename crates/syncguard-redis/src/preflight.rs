//! What a preflight asks the server, and what its answers mean for locks.

use fred::clients::Client;
use fred::error::Error as RedisError;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};
use syncguard_core::{Finding, Level};

use crate::error::Fault;

/// The commands inside the scripts, and those that send the scripts. `KEY` stands for a key of ours.
const COMMANDS: [&[&str]; 9] = [
    &["EVALSHA", "0000000000000000000000000000000000000000", "1", KEY],
    &["EVAL", "return 1", "1", KEY],
    &["GET", KEY],
    &["SET", KEY, ""],
    &["DEL", KEY],
    &["INCR", KEY],
    &["DECR", KEY],
    &["PEXPIRE", KEY, "1"],
    &["TIME"],
];

/// The commands of notifications.
const NOTIFICATIONS: [&[&str]; 4] =
    [&["PUBLISH", KEY, ""], &["SUBSCRIBE", KEY], &["UNSUBSCRIBE", KEY], &["PING"]];
const SHARDED_NOTIFICATIONS: [&[&str]; 3] =
    [&["SPUBLISH", KEY, ""], &["SSUBSCRIBE", KEY], &["SUNSUBSCRIBE", KEY]];

/// The commands of a leader that publishes, and of those who read it.
const PUBLISHING: [&[&str]; 2] = [&["HSET", KEY, "fence", ""], &["HMGET", KEY, "fence"]];

const KEY: &str = "KEY";

/// What the answers are judged by.
pub(crate) struct Expectations<'a> {
    /// The prefix of all keys.
    pub(crate) prefix: &'a str,
    /// Whether the client knows that the server is a cluster.
    pub(crate) clustered: bool,
    pub(crate) notifications: bool,
}

/// Asks the server and judges its answers, one finding for each check.
pub(crate) async fn findings(
    client: &Client,
    options: &Options,
    expected: &Expectations<'_>,
) -> Vec<Finding> {
    let slot = ClusterHash::Custom(fred::util::redis_keyslot(expected.prefix.as_bytes()));
    let options = Options { cluster_hash: Some(slot), ..options.clone() };
    let server = Server { client, options };
    let info = server.text(&["INFO"]).await;
    let mut findings = Vec::new();
    match &info {
        Ok(info) => {
            findings.push(version(info));
            findings.push(cluster(info, expected.clustered));
            findings.push(role(info));
            findings.push(eviction(info));
            findings.push(persistence(info, server.config("appendfsync").await));
            findings.push(replicas(info, server.config("min-replicas-to-write").await));
        }
        Err(error) => {
            let checks =
                ["version", "cluster", "role", "eviction-policy", "persistence", "min-replicas"];
            findings.extend(checks.map(|check| unknown(check, "INFO", error)));
        }
    }
    findings.push(server.permissions("permissions", &COMMANDS, expected.prefix).await);
    findings.push(server.permissions("publishing-permissions", &PUBLISHING, expected.prefix).await);
    if expected.notifications {
        let commands = if expected.clustered { &SHARDED_NOTIFICATIONS[..] } else { &NOTIFICATIONS };
        let check = "notification-permissions";
        findings.push(server.permissions(check, commands, expected.prefix).await);
    }
    findings
}

struct Server<'a> {
    client: &'a Client,
    options: Options,
}

impl Server<'_> {
    async fn ask(&self, words: &[&str]) -> Result<Value, RedisError> {
        let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
        let command = CustomCommand::new((*name).to_owned(), ClusterHash::FirstKey, false);
        let arguments: Vec<Value> = arguments.iter().map(|word| Value::from(*word)).collect();
        self.client.with_options(&self.options).custom(command, arguments).await
    }

    async fn text(&self, words: &[&str]) -> Result<String, RedisError> {
        Ok(self.ask(words).await?.into_string().unwrap_or_default())
    }

    async fn config(&self, name: &str) -> Result<String, RedisError> {
        let answer = self.ask(&["CONFIG", "GET", name]).await?.into_array();
        Ok(answer.into_iter().nth(1).and_then(Value::into_string).unwrap_or_default())
    }

    /// Asks whether the user may run these commands on a key or channel with the prefix.
    async fn permissions(
        &self,
        check: &'static str,
        commands: &[&[&str]],
        prefix: &str,
    ) -> Finding {
        let user = match self.text(&["ACL", "WHOAMI"]).await {
            Ok(user) => user,
            Err(error) => return unknown(check, "ACL WHOAMI", &error),
        };
        let key = format!("{prefix}:preflight");
        let mut missing = Vec::new();
        for command in commands {
            let mut words = vec!["ACL", "DRYRUN", user.as_str()];
            words.extend(command.iter().map(|word| if *word == KEY { key.as_str() } else { word }));
            match self.text(&words).await {
                Ok(answer) if answer == "OK" => {}
                Ok(_) => missing.push(command[0].to_ascii_lowercase()),
                Err(error) => return unknown(check, "ACL DRYRUN", &error),
            }
        }
        if missing.is_empty() {
            return Finding::new(
                Level::Fine,
                check,
                format!("user {user} may do all it needs"),
                "",
            );
        }
        let level = if check == "permissions" { Level::Error } else { Level::Warning };
        Finding::new(
            level,
            check,
            format!("user {user} may not run {}", missing.join(", ")),
            format!("let the user run these commands on ~{prefix}:* and &{prefix}:*"),
        )
    }
}

/// A check that could not be made.
fn unknown(check: &'static str, asked: &str, error: &RedisError) -> Finding {
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

fn version(info: &str) -> Finding {
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

fn cluster(info: &str, clustered: bool) -> Finding {
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

fn role(info: &str) -> Finding {
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

fn eviction(info: &str) -> Finding {
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

fn persistence(info: &str, fsync: Result<String, RedisError>) -> Finding {
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

fn replicas(info: &str, required: Result<String, RedisError>) -> Finding {
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

//! What a preflight asks the server.

mod answer;

use fred::clients::Client;
use fred::error::Error as RedisError;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};
use syncguard_core::{Finding, Level};

use self::answer::{cluster, eviction, persistence, replicas, role, unknown, version};

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

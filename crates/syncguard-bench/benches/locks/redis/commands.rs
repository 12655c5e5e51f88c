//! How many commands clients have sent.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use syncguard_bench::Outcome;

use super::{connect, peers};

/// Redis counts the commands that a script runs like those that a client sends, in
/// `total_commands_processed` as well as in `commandstats`. Here they are told apart by name: these
/// come out of scripts, with every contestant.
const OF_SCRIPTS: [&str; 8] =
    ["decr", "del", "get", "incr", "pexpire", "publish", "spublish", "time"];

pub(crate) struct Commands {
    client: Client,
}

impl Commands {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        Ok(Self { client: connect(url).await? })
    }

    /// All commands but those of scripts and the one that asks.
    pub(crate) async fn count(&self, contestant: &str) -> Outcome<f64> {
        let stats: String = self.client.info(Some(InfoKind::CommandStats)).await?;
        let mut sum = 0.0;
        for line in stats.lines() {
            let Some((command, figures)) =
                line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="))
            else {
                continue;
            };
            let sent = match command {
                "info" => false,
                // Peers send it; SyncGuard's scripts run it.
                "set" => peers::sends_set(contestant),
                _ => !OF_SCRIPTS.contains(&command),
            };
            if sent {
                sum += figures.split(',').next().unwrap_or_default().parse::<f64>()?;
            }
        }
        Ok(sum)
    }
}

//! Counts the commands that clients have sent.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use syncguard_bench::Outcome;

use super::{connect, peers};

/// The commands that only scripts run, with every contestant.
///
/// Redis counts a command of a script like a command of a client, in `total_commands_processed` and
/// in `commandstats`. Only the names distinguish them.
const OF_SCRIPTS: [&str; 8] =
    ["decr", "del", "get", "incr", "pexpire", "publish", "spublish", "time"];

pub(crate) struct Commands {
    client: Client,
}

impl Commands {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        Ok(Self { client: connect(url).await? })
    }

    /// Returns the number of all commands except those of scripts and this query.
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
                // Other libraries send it as a command, but SyncGuard runs it in scripts.
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

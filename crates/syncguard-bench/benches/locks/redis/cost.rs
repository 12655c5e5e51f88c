//! What the server spends: on each script, and on a cycle of 64 tasks.

use fred::clients::Client;
use fred::interfaces::{ClientLike, ConfigInterface, KeysInterface, LuaInterface};
use fred::types::{Expiration, InfoKind, SetOptions};
use syncguard_bench::{Outcome, Table, median, short};
use syncguard_core::{Acquired, Backend, Key, LockId, Ttl};
use syncguard_redis::RedisBackend;

use super::floor::COMPARE_AND_DELETE;
use crate::contestant::{Contestant, TTL};
use crate::options::Pace;
use crate::uncontended::run;

const CALLS: usize = 20_000;

/// Prints the time of one call of each script, as the server measures it.
pub(super) async fn print(client: &Client, backend: &RedisBackend) -> Outcome {
    eprintln!("Redis: the cost of each script");
    let mut table = Table::new(&["call", "us on the server"]);
    let ttl = Ttl::try_from(TTL)?;
    let mut leases = Vec::new();
    client.config_resetstat().await?;
    for call in 0..CALLS {
        let key = Key::new(&format!("bench:cost:{call}"))?;
        if let Acquired::Granted(lease) = backend.acquire(&key, &LockId::random()?, ttl).await? {
            leases.push(lease);
        }
    }
    table.row(cost_of(client, "acquire", "evalsha").await?);
    for lease in &leases {
        backend.extend(lease, ttl).await?;
    }
    table.row(cost_of(client, "extend", "evalsha").await?);
    for lease in &leases {
        backend.release(lease).await?;
    }
    table.row(cost_of(client, "release", "evalsha").await?);
    for call in 0..CALLS {
        let key = format!("floor:cost:{call}");
        let expire = Some(Expiration::PX(30_000));
        client.set::<(), _, _>(key, "x", expire, Some(SetOptions::NX), false).await?;
    }
    table.row(cost_of(client, "SET NX PX", "set").await?);
    let sha: String = client.script_load(COMPARE_AND_DELETE).await?;
    for call in 0..CALLS {
        let _: i64 = client.evalsha(&sha, format!("floor:cost:{call}"), "x").await?;
    }
    table.row(cost_of(client, "compare-and-delete", "evalsha").await?);
    print!("\nRedis, microseconds on the server per call\n\n{table}");
    Ok(())
}

const TASKS: usize = 64;

/// Prints the processor time of the server for one cycle, while 64 tasks use keys of their own.
pub(super) async fn print_cpu(
    client: &Client,
    contestants: &[(&str, &Contestant)],
    pace: Pace,
) -> Outcome {
    eprintln!("Redis: the server's time");
    let mut table = Table::new(&["contestant", "us of the server per cycle", "of the first"]);
    let mut costs = vec![Vec::new(); contestants.len()];
    for _ in 0..pace.rounds {
        for ((_, contestant), costs) in contestants.iter().zip(&mut costs) {
            let before = cpu(client).await?;
            let run = run(contestant, TASKS, pace.run).await?;
            costs.push((cpu(client).await? - before) * 1e6 / (run.rate * pace.run.as_secs_f64()));
        }
    }
    for ((name, _), mine) in contestants.iter().zip(&costs) {
        let ratios = mine.iter().zip(&costs[0]).map(|(mine, first)| mine / first).collect();
        let ratio = format!("{:.2}", median(ratios));
        table.row(vec![(*name).to_owned(), short(median(mine.clone())), ratio]);
    }
    print!("\nRedis, time of the server, {TASKS} tasks on keys of their own\n\n{table}");
    Ok(())
}

/// The processor time that the server has used, in seconds.
async fn cpu(client: &Client) -> Outcome<f64> {
    let stats: String = client.info(Some(InfoKind::Cpu)).await?;
    let mut sum = 0.0;
    for name in ["used_cpu_user:", "used_cpu_sys:"] {
        let value = stats.lines().find_map(|line| line.strip_prefix(name));
        sum += value.ok_or("the server does not tell its time")?.trim().parse::<f64>()?;
    }
    Ok(sum)
}

/// Returns a row from the statistics of the server, and resets them.
async fn cost_of(client: &Client, name: &str, command: &str) -> Outcome<Vec<String>> {
    let stats: String = client.info(Some(InfoKind::CommandStats)).await?;
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let cost = line.and_then(|line| line.split("usec_per_call=").nth(1)?.split(',').next());
    client.config_resetstat().await?;
    Ok(vec![name.to_owned(), cost.unwrap_or("-").to_owned()])
}

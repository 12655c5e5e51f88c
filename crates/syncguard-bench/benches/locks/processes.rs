//! Child processes of this program that start their work at the same moment.
//!
//! A child prints `ready`, waits for a line on its input, works, and prints its answer as lines. It
//! reports a failure as a line too.

use std::io::stdin;
use std::process::Stdio;
use std::time::Duration;

use syncguard_bench::Outcome;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The first argument of a child.
pub(crate) const CHILD: &str = "--child";

const READY: &str = "ready";
const FAILED: &str = "failed: ";
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Children that are ready. Dropping this kills them.
pub(crate) struct Children(Vec<(Child, BufReader<ChildStdout>)>);

impl Children {
    /// Starts `count` processes and waits until all are ready.
    pub(crate) async fn start(count: usize, arguments: &[String]) -> Outcome<Self> {
        let mut children = Vec::new();
        for _ in 0..count {
            let mut child = Command::new(std::env::current_exe()?)
                .arg(CHILD)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let output = child.stdout.take().ok_or("a child has no output")?;
            children.push((child, BufReader::new(output)));
        }
        for (_, output) in &mut children {
            let mut line = String::new();
            timeout(CONNECT_LIMIT, output.read_line(&mut line))
                .await
                .map_err(|_| "a child was not ready in time")??;
            if line.trim_end() != READY {
                return Err(reason(&line));
            }
        }
        Ok(Self(children))
    }

    /// Starts the work of all children, and returns the lines of their answers.
    pub(crate) async fn finish(mut self, limit: Duration) -> Outcome<Vec<String>> {
        for (child, _) in &mut self.0 {
            let mut input = child.stdin.take().ok_or("a child has no input")?;
            input.write_all(b"go\n").await?;
        }
        let answers = async {
            let mut lines = Vec::new();
            for (child, output) in &mut self.0 {
                let mut answer = String::new();
                output.read_to_string(&mut answer).await?;
                child.wait().await?;
                if answer.starts_with(FAILED) || answer.is_empty() {
                    return Err(reason(&answer));
                }
                lines.extend(answer.lines().map(str::to_owned));
            }
            Ok(lines)
        };
        timeout(limit, answers)
            .await
            .map_err(|_| format!("not done {} s after the start", limit.as_secs()))?
    }
}

fn reason(line: &str) -> Box<dyn std::error::Error + Send + Sync> {
    match line.trim().strip_prefix(FAILED) {
        Some(reason) => reason.into(),
        None => "a child ended without an answer".into(),
    }
}

/// Reports, in a child, that it is ready, and returns when all children start.
pub(crate) async fn ready() -> Outcome {
    println!("{READY}");
    tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// Prints, in a child, the answer.
pub(crate) async fn report(work: impl Future<Output = Outcome<Vec<String>>>) -> Outcome {
    match work.await {
        Ok(lines) => println!("{}", lines.join("\n")),
        Err(error) => println!("{FAILED}{}", error.to_string().replace('\n', " ")),
    }
    Ok(())
}

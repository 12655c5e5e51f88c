//! Trials that need a process of their own: what they check belongs to the process, such as its memory
//! or the provider of TLS that it has chosen.
//!
//! A trial starts this program again, with its name and its arguments after [`ALONE`].

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an assertion of a trial may panic")]

mod certificates;
mod credentials;
mod logs;
mod memory;
mod tls;

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};
use syncguard::LockManager;
use tokio::time::timeout;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The first argument of a process that runs one trial.
const ALONE: &str = "alone";

/// How long a trial may take, besides the time that it is told to take.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Outcome<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    // A server removes its container when it is dropped, which needs the runtime.
    let _inside = runtime.enter();
    let words: Vec<String> = env::args().skip(1).collect();
    if let [first, trial, rest @ ..] = words.as_slice()
        && first == ALONE
    {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        runtime.block_on(alone(trial, &rest))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all = memory::trials();
    all.extend(credentials::trials());
    all.extend(logs::trials());
    all.extend(tls::trials(runtime.handle()));
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    Ok(libtest_mimic::run(&arguments, all).exit_code())
}

/// Runs a trial in this process.
async fn alone(trial: &str, arguments: &[&str]) -> Outcome {
    match (trial, arguments) {
        ("credentials", []) => timeout(LIMIT, credentials::alone()).await?,
        ("logs", []) => timeout(LIMIT, logs::alone()).await?,
        ("memory", [backend, seconds]) => {
            let time = Duration::from_secs(seconds.parse()?);
            timeout(LIMIT + time * 4, memory::alone(backend, time)).await?
        }
        ("tls", [redis, postgres, certificate, steps @ ..]) => {
            let servers = tls::Addresses { redis, postgres, certificate };
            timeout(LIMIT, tls::alone(&servers, steps)).await?
        }
        _ => Err("no such trial".into()),
    }
}

/// Runs a trial in a process of its own, with these variables in its environment.
fn in_own_process(arguments: &[&str], variables: &[(&str, &Path)]) -> Result<(), Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(ALONE).args(arguments);
    for name in ["FIRESTORE_EMULATOR_HOST", "GCE_METADATA_HOST", "GOOGLE_APPLICATION_CREDENTIALS"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    let output = command.output()?;
    let [printed, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    print!("{printed}");
    // A task that panics does not end the process.
    if output.status.success() && !errors.contains("panicked") {
        return Ok(());
    }
    Err(format!("{}:\n{errors}", output.status).into())
}

/// Takes and releases a lock.
async fn lock_once(locks: &LockManager) -> Outcome {
    let guard = locks.lock(fresh_key()).acquire().await?;
    assert!(guard.release().await?, "the lease was lost");
    Ok(())
}

fn fresh_key() -> String {
    format!("process-{}", syncguard::LockId::random().unwrap().as_str())
}

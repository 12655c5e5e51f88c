//! Every example runs to its end and prints what it promises. Those with a server get one.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use contract_tests::servers::Server;
use libtest_mimic::{Arguments, Failed, Trial};
use syncguard_firestore::FirestoreBackend;
use syncguard_postgres::{Error, PostgresBackend};
use syncguard_redis::RedisBackend;
use tokio::runtime::Runtime;

fn main() -> std::io::Result<ExitCode> {
    let runtime = Arc::new(Runtime::new()?);
    // Servers are dropped inside the runtime, at the end.
    let _inside = runtime.enter();
    let servers = [Server::redis(), Server::postgres(), Server::firestore()].map(Arc::new);
    let [redis, postgres, firestore] = &servers;

    let redis =
        on(
            &runtime,
            redis,
            |url: String| async move { RedisBackend::connect(&url).await.map(|_| url) },
        );
    let postgres = on(&runtime, postgres, |url: String| async move {
        PostgresBackend::connect(&url).await.map(|_| url)
    });
    let firestore = on(&runtime, firestore, |url: String| async move {
        let address = url.trim_start_matches("http://").to_owned();
        let builder = FirestoreBackend::builder("example").emulator(&address);
        builder.connect().await.map(|_| address)
    });
    let none = || -> Url { Arc::new(|| Ok(String::new())) };

    let trials = vec![
        example(env!("CARGO_BIN_EXE_quickstart"), none(), "", "carl was told of the loss"),
        example(env!("CARGO_BIN_EXE_fenced_writes"), none(), "", "ada writes: Err(\"refused"),
        example(env!("CARGO_BIN_EXE_rate_limit"), none(), "", "attempt 2: too soon"),
        example(env!("CARGO_BIN_EXE_custom_backend"), none(), "", "released: true"),
        example(env!("CARGO_BIN_EXE_payment"), redis.clone(), "REDIS_URL", "finds it paid"),
        example(env!("CARGO_BIN_EXE_long_job"), redis.clone(), "REDIS_URL", "the job was stopped"),
        example(env!("CARGO_BIN_EXE_handoff"), redis.clone(), "REDIS_URL", "released it: true"),
        example(env!("CARGO_BIN_EXE_choose_backend"), redis, "LOCKS", "the job ran once"),
        example(env!("CARGO_BIN_EXE_fenced_table"), postgres, "DATABASE_URL", "the balance is 150"),
        example(
            env!("CARGO_BIN_EXE_checked_clock"),
            firestore,
            "FIRESTORE_EMULATOR_HOST",
            "the export ran once",
        ),
    ];
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

/// The address of a server, which is started if need be.
type Url = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

fn on<F>(
    runtime: &Arc<Runtime>,
    server: &Arc<Server>,
    connect: impl Fn(String) -> F + Send + Sync + 'static,
) -> Url
where
    F: Future<Output = Result<String, Error>>,
{
    let (runtime, server) = (runtime.clone(), server.clone());
    Arc::new(move || runtime.block_on(server.client(&connect)))
}

/// Runs a program with the address of its server in `variable`, and looks for a line.
fn example(program: &'static str, url: Url, variable: &'static str, line: &'static str) -> Trial {
    let name = program.rsplit(std::path::MAIN_SEPARATOR).next().unwrap_or(program);
    Trial::test(format!("example::{name}"), move || {
        let mut command = Command::new(program);
        if !variable.is_empty() {
            command.env(variable, url()?);
        }
        let output = command.output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && printed.contains(line) {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Failed::from(format!("{}, without \"{line}\":\n{printed}{errors}", output.status)))
    })
}

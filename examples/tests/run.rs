//! Runs every example to its end and checks a line that it prints. Starts a server for those that
//! need one.

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
    // A server must be dropped inside the runtime.
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
        let builder = FirestoreBackend::builder().emulator(&address);
        builder.connect("example").await.map(|_| address)
    });

    let mut trials: Vec<_> = [
        (env!("CARGO_BIN_EXE_quickstart"), "carl lost the lease and stopped"),
        (env!("CARGO_BIN_EXE_wait"), "the patient request got the lock"),
        (env!("CARGO_BIN_EXE_cancel"), "dropped: true, still waiting: 0"),
        (env!("CARGO_BIN_EXE_backoff"), "fixed: "),
        (env!("CARGO_BIN_EXE_lost"), "the helper finished its part: false"),
        (env!("CARGO_BIN_EXE_extend"), "the stuck job lost its lock"),
        (env!("CARGO_BIN_EXE_shutdown"), "waited and was stopped"),
        (env!("CARGO_BIN_EXE_error_codes"), "outage: failed, try again later"),
        (env!("CARGO_BIN_EXE_observer"), "lost leases: 1"),
        (env!("CARGO_BIN_EXE_batch"), "imported 2 lines"),
        (env!("CARGO_BIN_EXE_blocking"), "it kept its lease for 4 steps"),
        (env!("CARGO_BIN_EXE_web"), "402 Payment Required"),
        (env!("CARGO_BIN_EXE_idempotent_payment"), "the card was charged 1 time"),
        (env!("CARGO_BIN_EXE_fenced_writes"), "ada writes: Err(\"refused"),
        (env!("CARGO_BIN_EXE_rate_limit"), "attempt 2: too soon"),
        (env!("CARGO_BIN_EXE_custom_backend"), "released: true"),
    ]
    .into_iter()
    .map(|(program, line)| example(program, None, line))
    .collect();
    trials.extend(
        [
            (env!("CARGO_BIN_EXE_payment"), "REDIS_URL", &redis, "finds it paid"),
            (env!("CARGO_BIN_EXE_long_job"), "REDIS_URL", &redis, "the job was stopped"),
            (env!("CARGO_BIN_EXE_handoff"), "REDIS_URL", &redis, "released the lease: true"),
            (env!("CARGO_BIN_EXE_leader"), "REDIS_URL", &redis, "is refused"),
            (env!("CARGO_BIN_EXE_choose_backend"), "LOCKS", &redis, "the job ran once"),
            (env!("CARGO_BIN_EXE_preflight"), "LOCKS", &redis, "checks, 0 errors"),
            (env!("CARGO_BIN_EXE_fenced_table"), "DATABASE_URL", &postgres, "the balance is 150"),
            (
                env!("CARGO_BIN_EXE_checked_clock"),
                "FIRESTORE_EMULATOR_HOST",
                &firestore,
                "the export ran once",
            ),
        ]
        .into_iter()
        .map(|(program, variable, url, line)| example(program, Some((variable, url)), line)),
    );
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

/// Returns the address of a server, which it starts if needed.
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

/// Runs a program, with the address of its server in a variable, and checks a line of its output.
fn example(
    program: &'static str,
    server: Option<(&'static str, &Url)>,
    line: &'static str,
) -> Trial {
    let name = program.rsplit(std::path::MAIN_SEPARATOR).next().unwrap_or(program);
    let server = server.map(|(variable, url)| (variable, url.clone()));
    Trial::test(format!("example::{name}"), move || {
        let mut command = Command::new(program);
        if let Some((variable, url)) = server {
            command.env(variable, url()?);
        }
        let output = command.output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && printed.contains(line) {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Failed::from(format!(
            "{}: expected a line with \"{line}\", got:\n{printed}{errors}",
            output.status
        )))
    })
}

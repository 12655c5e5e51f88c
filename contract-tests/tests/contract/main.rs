//! The proof: the whole suite on every backend of this workspace, and the proof of the suite.

#[expect(dead_code, reason = "the first backend with a server joins next")]
mod servers;

use std::process::ExitCode;

use contract_tests::{controls, trials};
use libtest_mimic::Arguments;
use syncguard_memory::{Error, MemoryBackend};

fn main() -> std::io::Result<ExitCode> {
    let mut args = Arguments::from_args();
    // Trials mostly wait for a lease to end or for a server, so there may be many at a time.
    args.test_threads.get_or_insert(16);

    let runtime = tokio::runtime::Runtime::new()?;
    let mut all = controls();

    let memory = MemoryBackend::new();
    all.extend(trials(runtime.handle(), "memory", move || {
        let client = memory.clone();
        async move { Ok::<_, Error>(client) }
    }));

    Ok(libtest_mimic::run(&args, all).exit_code())
}

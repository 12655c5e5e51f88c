//! Proves the example's own backend: the whole contract suite, in one call.

use std::process::ExitCode;

use syncguard_contract::libtest_mimic::{self, Arguments};
use syncguard_core::{Backend, Error};
use syncguard_examples::file_backend::FileBackend;

fn main() -> std::io::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let backend = FileBackend::new(directory.path().join("locks.json"));
    let capabilities = backend.capabilities();
    let runtime = tokio::runtime::Runtime::new()?;
    let trials = syncguard_contract::trials(runtime.handle(), "file", capabilities, move || {
        let client = backend.clone();
        async move { Ok::<_, Error>(client) }
    });
    let mut args = Arguments::from_args();
    // Few at a time, because all of them wait for one file.
    args.test_threads.get_or_insert(4);
    Ok(libtest_mimic::run(&args, trials).exit_code())
}

//! The proof of the example's own backend: the whole contract suite, in one call.

use std::process::ExitCode;

use libtest_mimic::Arguments;
use syncguard_core::Error;
use syncguard_examples::file_backend::FileBackend;

fn main() -> std::io::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("locks.json");
    let runtime = tokio::runtime::Runtime::new()?;
    let trials = contract_tests::trials(runtime.handle(), "file", move || {
        let backend = FileBackend::new(&path);
        async move { Ok::<_, Error>(backend) }
    });
    let mut args = Arguments::from_args();
    // Few at a time, since all of them wait for one file.
    args.test_threads.get_or_insert(4);
    Ok(libtest_mimic::run(&args, trials).exit_code())
}

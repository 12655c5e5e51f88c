//! The suite on the memory backend, with each set of capabilities that it can have, and the controls
//! of the suite. No server is needed.

use std::process::ExitCode;

use syncguard_contract::libtest_mimic::{self, Arguments};
use syncguard_contract::{controls, trials};
use syncguard_memory::{AnyBackend, Backend, Error, FaultyBackend, MemoryBackend};

fn main() -> std::io::Result<ExitCode> {
    let mut args = Arguments::from_args();
    // Trials mostly wait for a lease to end, so many can run at a time.
    args.test_threads.get_or_insert(16);
    let runtime = tokio::runtime::Runtime::new()?;
    let faulty = || FaultyBackend::new(MemoryBackend::new());
    let backends = [
        ("memory", AnyBackend::new(MemoryBackend::new())),
        ("memory_ends_at_ttl", AnyBackend::new(MemoryBackend::new().with_end_at_ttl())),
        ("memory_sends_only", AnyBackend::new(faulty().with_sent_notifications_only())),
        ("memory_plain", AnyBackend::new(faulty().without_notifications().without_handoff())),
    ];
    let mut all = controls();
    for (name, backend) in backends {
        let capabilities = backend.capabilities();
        all.extend(trials(runtime.handle(), name, capabilities, move || {
            let client = backend.clone();
            async move { Ok::<_, Error>(client) }
        }));
    }
    Ok(libtest_mimic::run(&args, all).exit_code())
}

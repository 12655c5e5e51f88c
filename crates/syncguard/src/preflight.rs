//! Logs what a preflight finds.

use syncguard_core::{AnyBackend, Backend, Finding, Level};
use tokio::runtime::Handle;

/// Checks the store in a task, and logs one line per finding.
pub(crate) fn log_in_background(runtime: &Handle, backend: AnyBackend) {
    // Nobody waits for the task: it ends by the command timeout of the backend.
    drop(runtime.spawn(async move { backend.preflight().await.iter().for_each(log) }));
}

/// Logs a finding. What is worse is logged at a higher level.
fn log(finding: &Finding) {
    let (code, fact, advice) = (finding.code(), finding.fact(), finding.advice());
    match finding.level() {
        Level::Fine => tracing::debug!(code, fact, "preflight"),
        Level::Unknown => tracing::info!(code, fact, advice, "preflight: unknown"),
        Level::Warning => tracing::warn!(code, fact, advice, "preflight"),
        // `Error`, and whatever may be added: rather too loud than too quiet.
        _ => tracing::error!(code, fact, advice, "preflight"),
    }
}

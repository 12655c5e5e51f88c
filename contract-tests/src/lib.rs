//! Runs the contract suite on the servers of this workspace.

pub mod forwarder;
pub mod ports;
pub mod servers;

use std::time::Duration;

use tokio::time::timeout;

pub use syncguard_contract::{controls, describe, trials};

/// How long a trial may take. It is far longer than any needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a trial, which fails if it hangs.
///
/// # Errors
///
/// If the trial does not end in time.
pub async fn limited<T>(trial: impl Future<Output = T>) -> Result<T, String> {
    let outcome = timeout(LIMIT, trial).await;
    outcome.map_err(|_| format!("the trial did not end within {} s", LIMIT.as_secs()))
}

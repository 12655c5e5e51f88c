//! One behavioural suite for every SyncGuard backend, your own included.
//!
//! The suite is the contract as [libtest-mimic] trials: one per line or facet of it, named by
//! section and number, such as `mystore::release::r2_true_exactly_once_of_ten`. To prove a backend,
//! make a test target with `harness = false` out of these lines:
//!
//! ```
//! use std::process::ExitCode;
//! use syncguard_memory::{Error, MemoryBackend};
//!
//! fn main() -> std::io::Result<ExitCode> {
//!     let runtime = tokio::runtime::Runtime::new()?;
//!     let backend = MemoryBackend::new();
//!     let trials = contract_tests::trials(runtime.handle(), "mystore", move || {
//!         let client = backend.clone();
//!         async move { Ok::<_, Error>(client) }
//!     });
//! #   let args = libtest_mimic::Arguments { list: true, ..Default::default() };
//! #   return Ok(libtest_mimic::run(&args, trials).exit_code());
//!     let args = libtest_mimic::Arguments::from_args();
//!     Ok(libtest_mimic::run(&args, trials).exit_code())
//! }
//! ```
//!
//! Every trial uses keys of its own, so trials run in parallel and beside other users of the store.
//! None of them depends on luck with time: what must hold while a lease lives is asked of leases
//! that outlive any trial, and what must happen at its end is awaited. Where a backend's
//! [`Capabilities`](syncguard_core::Capabilities) say that it differs, something else is asserted;
//! nothing is left out.
//!
//! [`controls`] are the proof of the suite itself: backends that are broken on purpose, each of
//! which the right case must reject.
//!
//! [libtest-mimic]: libtest_mimic

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "an assertion of the suite may panic"
)]

mod controls;
mod store;
mod suite;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

pub use controls::controls;
use libtest_mimic::{Failed, Trial};
use syncguard_core::{AnyBackend, Backend};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::store::Store;

/// No case takes longer, however busy the machine; a case that does is one that hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The whole suite for one backend, as trials whose names begin with `name`.
///
/// `connect` makes a client of the store under test. It is called when the first trial runs, and
/// twice: cases that concern several processes use both clients, so both must see the same locks.
/// If it fails, every trial fails with what it says.
///
/// The clients live on `runtime`, which must be a multi-thread runtime with its time and I/O
/// drivers enabled, and must outlive the trials.
pub fn trials<B, E, F>(
    runtime: &Handle,
    name: &str,
    connect: impl Fn() -> F + Send + Sync + 'static,
) -> Vec<Trial>
where
    B: Backend,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: Future<Output = Result<B, E>> + Send + 'static,
{
    let connect = Arc::new(connect);
    let store = Arc::new(OnceCell::new());
    let trial = |case: suite::Case| {
        let (runtime, connect, store) = (runtime.clone(), connect.clone(), store.clone());
        Trial::test(format!("{name}::{}", case.name()), move || {
            // Moved, so that what the last trial drops is dropped inside the runtime.
            runtime.block_on(async move {
                let client = async || connect().await.map(AnyBackend::new).map_err(describe);
                let connected = async || Ok(Store::new(client().await?, client().await?));
                let store: &Result<Store, String> = store.get_or_init(connected).await;
                run(case, store.clone()?).await
            })
        })
    };
    suite::cases().map(trial).collect()
}

async fn run(case: suite::Case, store: Store) -> Result<(), Failed> {
    match tokio::time::timeout(LIMIT, case.run(store)).await {
        Ok(outcome) => Ok(outcome.map_err(describe)?),
        Err(_) => Err(format!("the case hangs: it takes longer than {LIMIT:?}").into()),
    }
}

/// An error with its causes, in one line.
fn describe(error: impl Into<Box<dyn Error + Send + Sync>>) -> String {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

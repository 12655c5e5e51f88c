//! The contract suite for SyncGuard backends, yours included.
//!
//! The suite turns the contract into [libtest-mimic] trials, one or more per clause. A name gives
//! the section and the clause: `mystore::release::r2_true_exactly_once_of_ten`. To prove a backend,
//! add a test target with `harness = false` and this `main`:
//!
//! ```
//! use std::process::ExitCode;
//!
//! use syncguard_contract::libtest_mimic::{self, Arguments};
//! use syncguard_memory::{Backend, Error, MemoryBackend};
//!
//! fn main() -> std::io::Result<ExitCode> {
//!     let runtime = tokio::runtime::Runtime::new()?;
//!     let backend = MemoryBackend::new();
//!     let capabilities = backend.capabilities();
//!     let trials = syncguard_contract::trials(runtime.handle(), "mystore", capabilities, move || {
//!         let client = backend.clone();
//!         async move { Ok::<_, Error>(client) }
//!     });
//! #   let args = Arguments { list: true, ..Default::default() };
//! #   return Ok(libtest_mimic::run(&args, trials).exit_code());
//!     let mut args = Arguments::from_args();
//!     // Trials mostly wait for a lease to end, so many can run at a time.
//!     args.test_threads.get_or_insert(16);
//!     Ok(libtest_mimic::run(&args, trials).exit_code())
//! }
//! ```
//!
//! A backend whose capabilities are known only after it has connected passes the value that it
//! expects, such as `Capabilities::new(Clock::Server).with_notifications()`. The suite checks it.
//!
//! # What to expect
//!
//! - Every trial uses keys of its own. Trials run in parallel, beside each other and beside other
//!   users of the store.
//! - No trial depends on lucky timing. A lease that must live outlives every trial, and a trial waits
//!   for the end of a lease that must end.
//! - A trial of something that the backend does not declare in its
//!   [`Capabilities`](syncguard_core::Capabilities) is reported as *ignored*: handoff (G1 to G4),
//!   publishing (N6 and N8), notifications, and the cases of waiting that run again without notifications
//!   (`without_notifications`) and with every second one lost (`lossy_notifications`).
//! - Every trial has a time limit. A backend that never answers fails; it does not hang the suite.
//! - A failure says what was expected and what came.
//!
//! # Controls
//!
//! [`controls`] prove the suite itself. Each is a backend with one defect, and passes if the right
//! case rejects that backend for the right reason.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an assertion of the suite may panic")]

#[macro_use]
mod expect;

mod cases;
mod controls;
mod describe;
mod elector;
mod handoff_setup;
mod model;
mod store;
mod trials;
mod waiter;

pub use libtest_mimic;

pub use self::controls::controls;
pub use self::describe::describe;
pub use self::trials::trials;

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
//!     let mut args = libtest_mimic::Arguments::from_args();
//!     // Trials mostly wait for a lease to end, so there may be many at a time.
//!     args.test_threads.get_or_insert(16);
//!     Ok(libtest_mimic::run(&args, trials).exit_code())
//! }
//! ```
//!
//! Every trial uses keys of its own, so trials run in parallel and beside other users of the store.
//! None of them depends on luck with time: what must hold while a lease lives is asked of leases
//! that outlive any trial, and what must happen at its end is awaited. Where a backend's
//! [`Capabilities`](syncguard_core::Capabilities) say that it differs, something else is asserted, but
//! for two things that are left out: the trials of G1 to G4 below pass at once where a backend hands
//! no leases over, and those of `without_notifications` and `lossy_notifications` where it pushes no notifications, since they
//! would repeat others. They are listed all the same: what a backend can do is known when the first
//! trial connects.
//!
//! # Waiting and handing over
//!
//! The lines of the contract on those who wait for one key through one lock manager:
//!
//! - W6 They stand in line, first come first served, and only the first talks to the backend.
//! - W7 Whoever leaves the line holds nobody up, and leaves no lease behind: cancelled, dropped, out
//!   of time or shut down, at its head or further back, and in the middle of an attempt.
//! - W8 The limits count from the call, also for those who never become first. Out of time they get
//!   `AcquisitionTimeout`, or the transient failure of whoever is in front. Retries are one's own
//!   attempts; to stand in line is none.
//! - W9 Where a backend pushes notifications, a release by whomever wakes the first in line, and none is
//!   missed, at whatever moment of an attempt it comes. One in the same process does so without them.
//!   Notifications are only notifications: all are served when there are none, and when half of them get lost.
//! - W10 A manager tells how many wait.
//! - O3 Every wait ends with one event: outcome, attempts of one's own, and time from the call.
//!
//! Where a backend [hands leases over](syncguard_core::Capabilities::supports_handoff):
//!
//! - G1 A handoff grants the same key with the id and the TTL that are asked for and a higher fence.
//!   The old id is gone.
//! - G2 A lease that is dead, unknown or replaced is not handed over, and nothing changes.
//! - G3 Of those who race to release a lease or to hand it over exactly one succeeds.
//! - G4 The key is held throughout.
//! - G5 The release of a guard serves the first in line by one handoff and no other call. It is
//!   true, and the new guard is like any other.
//! - G6 A handoff that fails, carried out or not, leaves nobody waiting and no lease behind.
//! - G7 Nor does one whose heir leaves, or whose releaser does, while it is under way.
//! - G8 Handoffs in a row are limited: after 16 grants where others are told of a release, and after
//!   a second anyway, other clients get their turn.
//!
//! Where it does not, the first in line is served by a release and an attempt. What concerns waiting
//! is also put through clients who are cut off from the notifications of the backend, and through ones who
//! lose half of them, if it pushes notifications.
//!
//! # Controls
//!
//! [`controls`] are the proof of the suite itself: backends that are broken on purpose, each of
//! which the right case must reject.
//!
//! [libtest-mimic]: libtest_mimic

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "an assertion of the suite may panic")]

mod controls;
mod model;
#[cfg(feature = "servers")]
pub mod servers;
mod store;
mod suite;
mod waiter;

use std::error::Error;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use controls::controls;
use libtest_mimic::{Failed, Trial};
use syncguard_core::{AnyBackend, Backend};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::store::{Notifications, Store};

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
    let suite = Arc::new(Suite {
        runtime: runtime.clone(),
        connect: Box::new(move || {
            let client = connect();
            Box::pin(async move { client.await.map(AnyBackend::new).map_err(describe) })
        }),
        store: OnceCell::new(),
    });
    let case = |case: suite::Case| {
        let suite = suite.clone();
        Trial::test(format!("{name}::{}", case.name()), move || {
            // Moved, so that what the last trial drops is dropped inside the runtime.
            let runtime = suite.runtime.clone();
            runtime.block_on(async move { run(case, suite.store().await?).await })
        })
    };
    let with_fewer_notifications = |(title, notifications): (&str, Notifications),
                                    case: suite::Case| {
        let suite = suite.clone();
        Trial::test(format!("{name}::{title}::{}", case.name()), move || {
            let runtime = suite.runtime.clone();
            runtime.block_on(async move {
                let store = suite.store().await?;
                // Otherwise there is nothing to take away, and it would repeat the case.
                if store.one.capabilities().receives_notifications() {
                    run(case, store.with_notifications(notifications)).await?;
                }
                Ok(())
            })
        })
    };
    let fewer_notifications = [
        ("without_notifications", Notifications::Off),
        ("lossy_notifications", Notifications::Lossy),
    ]
    .into_iter()
    .flat_map(|fewer| suite::waiting().map(move |case| (fewer, case)));
    let same = suite.clone();
    let model = format!("{name}::model::random_operations_agree_with_memory");
    let model = Trial::test(model, move || {
        // The last trial drops the clients, which must happen inside the runtime.
        let runtime = same.runtime.clone();
        let _inside = runtime.enter();
        let suite = same;
        let store = runtime.block_on(suite.store())?;
        Ok(model::agrees_with_memory(&runtime, &store)?)
    });
    // It takes longest, so it comes first.
    iter::once(model)
        .chain(suite::cases().map(case))
        .chain(fewer_notifications.map(|(fewer, case)| with_fewer_notifications(fewer, case)))
        .collect()
}

type Connect =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<AnyBackend, String>> + Send>> + Send + Sync;

/// What the trials of one backend share.
struct Suite {
    runtime: Handle,
    connect: Box<Connect>,
    store: OnceCell<Result<Store, String>>,
}

impl Suite {
    /// The store under test: the first trial connects to it.
    async fn store(&self) -> Result<Store, String> {
        let connect = async || {
            let (one, two) = ((self.connect)().await?, (self.connect)().await?);
            Ok(Store::new(one, two))
        };
        self.store.get_or_init(connect).await.clone()
    }
}

async fn run(case: suite::Case, store: Store) -> Result<(), Failed> {
    match tokio::time::timeout(LIMIT, case.run(store)).await {
        Ok(outcome) => Ok(outcome.map_err(describe)?),
        Err(_) => Err(format!("the case hangs: it takes longer than {LIMIT:?}").into()),
    }
}

/// An error with its causes, in one line: for trials of your own.
pub fn describe(error: impl Into<Box<dyn Error + Send + Sync>>) -> String {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! Firestore: the contract suite, and the trials of this backend alone.

#![allow(clippy::unwrap_used, reason = "a trial may panic")]

mod clocks;
mod contention;
mod faults;
mod golden;
mod listening;
mod overheard;
mod preflight;
mod proxy;
mod publishing;
mod raw;
mod recovery;
mod refusals;
mod restart;
mod stored;
mod unsure;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_firestore::{
    Acquired, Capabilities, Clock, Error, FirestoreBackend, FirestoreBackendBuilder, Key, Lease,
    LockId, Ttl,
};
use tokio::runtime::Handle;

use contract_tests::limited;
use contract_tests::servers::Server;
use proxy::Proxy;
use raw::Raw;

/// The URL scheme of the real service: `SYNCGUARD_FIRESTORE_URL=project:ID`, with the credentials
/// that the SDK finds.
///
/// Only the contract suite runs on it. The other trials need an emulator, because they read raw
/// documents, lose replies or restart the server. They are then reported as ignored.
const REAL: &str = "project:";

/// The project of all trials. An emulator accepts any name.
const PROJECT: &str = "syncguard";

/// A TTL so long that no trial sees the lease end.
const LONG: Duration = Duration::from_secs(600);

/// The command timeout, long enough for an emulator on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Lists trials by the names of their functions, so the compiler reports a missing one as dead
/// code.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$((
            stringify!($case),
            |emulator| Box::pin($case(emulator)),
        )),+];
    };
}
use cases;

type Running = std::pin::Pin<Box<dyn Future<Output = ()>>>;
type Case = (&'static str, fn(Emulator) -> Running);

pub(crate) fn trials(runtime: &Handle, server: &Arc<Server>, quiet: &Arc<Server>) -> Vec<Trial> {
    let suite = |name, notifications| {
        let clients = server.clients(move |url| async move {
            let (builder, project) = match url.strip_prefix(REAL) {
                Some(project) => (FirestoreBackend::builder().command_timeout(LIMIT), project),
                None => (Emulator::at(&url).builder(), PROJECT),
            };
            builder.notifications(notifications).connect(project).await
        });
        let plain = Capabilities::new(Clock::Client).with_publishing();
        let capabilities = if notifications { plain.with_notifications() } else { plain };
        contract_tests::trials(runtime, name, capabilities, clients)
    };
    let mut all = suite("firestore", false);
    all.extend(suite("firestore_notifications", true));

    let [emulators, quiet] = [server, quiet].map(|server| {
        Arc::new(server.clients(|url| async move {
            let emulator = Emulator::at(&url);
            emulator.builder().connect(PROJECT).await?.clock_offset().await?;
            Ok::<_, Error>(emulator)
        }))
    });
    let sections = [
        ("clocks", clocks::CASES),
        ("contention", contention::CASES),
        ("faults", faults::CASES),
        ("golden", golden::CASES),
        ("listening", listening::CASES),
        ("preflight", preflight::CASES),
        ("publishing", publishing::CASES),
        ("recovery", recovery::CASES),
        ("refusals", refusals::CASES),
        ("stored", stored::CASES),
        ("unsure", unsure::CASES),
    ];
    for (section, cases) in sections {
        for (name, case) in cases {
            let emulators = if section == "recovery" { &quiet } else { &emulators };
            let (runtime, emulators) = (runtime.clone(), emulators.clone());
            let trial = Trial::test(format!("firestore::{section}::{name}"), move || {
                runtime.block_on(async {
                    let emulator = emulators().await?;
                    Ok(limited(case(emulator)).await?)
                })
            });
            all.push(trial.with_ignored_flag(server.is_at(REAL)));
        }
    }

    let (runtime, restarted) = (runtime.clone(), server.clone());
    let restart =
        Trial::test("firestore::restart::e1_a_restart_loses_the_lease_and_reports_it", move || {
            Ok(runtime
                .block_on(restart::e1_a_restart_loses_the_lease_and_reports_it(&restarted))?)
        });
    all.push(restart.with_ignored_flag(server.is_at(REAL)));
    all
}

/// A running emulator.
#[derive(Clone, Debug)]
struct Emulator {
    address: String,
}

impl Emulator {
    fn at(url: &str) -> Self {
        Self { address: url.trim_start_matches("http://").to_owned() }
    }

    fn builder(&self) -> FirestoreBackendBuilder {
        builder(&self.address)
    }

    async fn backend(&self) -> FirestoreBackend {
        self.builder().connect(PROJECT).await.unwrap()
    }

    /// Creates a backend whose requests pass through a proxy.
    async fn through_proxy(&self) -> (Proxy, FirestoreBackend) {
        let proxy = Proxy::before(&self.address);
        let backend = builder(&proxy.address()).connect(PROJECT).await.unwrap();
        (proxy, backend)
    }

    /// Connects a client that reads and writes the documents directly.
    async fn raw(&self) -> Raw {
        Raw::connect(&self.address).await
    }
}

fn builder(address: &str) -> FirestoreBackendBuilder {
    FirestoreBackend::builder().emulator(address).command_timeout(LIMIT)
}

fn fresh_id() -> LockId {
    LockId::random().unwrap()
}

/// Returns a key that no other trial uses.
fn fresh_key() -> Key {
    Key::new(&format!("key:{}", fresh_id().as_str())).unwrap()
}

fn ttl(duration: Duration) -> Ttl {
    duration.try_into().unwrap()
}

fn granted(acquired: Result<Acquired, impl Display>) -> Lease {
    match acquired {
        Ok(Acquired::Granted(lease)) => lease,
        Ok(other) => panic!("not granted: {other:?}"),
        Err(error) => panic!("not granted: {error}"),
    }
}

fn without_revision(lease: &Lease) -> Lease {
    let (key, id) = (lease.key().clone(), lease.id().clone());
    Lease::new(key, id, lease.fence(), lease.expires_at())
}

//! The trials of one backend: what they share, and the limit of each.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use syncguard_core::{AnyBackend, Backend, Capabilities};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::cases::{self, Case, Need};
use crate::describe::describe;
use crate::model;
use crate::store::{Notifications, Store};

/// No case takes longer, however busy the machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The first trial connects, and a test may start its server then.
const CONNECT_LIMIT: Duration = Duration::from_secs(600);

/// Returns the whole suite for one backend, as trials whose names begin with `name`.
///
/// `capabilities` are those that the backend declares. A trial is reported as *ignored* if it tests
/// something that the backend does not declare. The suite takes them as an argument, because it
/// connects only when the first trial runs, so listing or filtering trials needs no server. If the
/// connected backend declares something else, every trial fails and says so.
///
/// `connect` makes a client of the store under test. It is called twice, because some cases need two
/// processes: both clients must see the same locks. If it fails, every trial fails with its error.
///
/// The clients live on `runtime`. It must be a multi-thread runtime with its time and I/O drivers
/// enabled, and must outlive the trials.
///
/// Every case ends within 60 s, or fails. The trial that compares the backend with a model runs 4
/// batches, each within 60 s.
pub fn trials<B, E, F>(
    runtime: &Handle,
    name: &str,
    capabilities: Capabilities,
    connect: impl Fn() -> F + Send + Sync + 'static,
) -> Vec<Trial>
where
    B: Backend,
    E: Into<Box<dyn Error + Send + Sync>>,
    F: Future<Output = Result<B, E>> + Send + 'static,
{
    let suite = Arc::new(Suite {
        runtime: runtime.clone(),
        capabilities,
        connect: Box::new(move || {
            let client = connect();
            Box::pin(async move { client.await.map(AnyBackend::new).map_err(describe) })
        }),
        store: OnceCell::new(),
    });
    let model = format!("{name}::model::random_operations_agree_with_memory");
    // It takes longest, so it comes first.
    let mut trials = vec![suite.trial(model, None, |runtime, store| {
        Ok(model::agrees_with_memory(runtime, &store, LIMIT)?)
    })];
    for case in cases::all() {
        trials.push(suite.trial(format!("{name}::{}", case.name()), case.needs(), {
            move |runtime, store| runtime.block_on(run(case, store, LIMIT))
        }));
    }
    for (title, notifications) in [
        ("without_notifications", Notifications::Off),
        ("lossy_notifications", Notifications::Lossy),
    ] {
        for case in cases::without_notifications() {
            let name = format!("{name}::{title}::{}", case.name());
            // A backend without notifications passes these cases already as they are.
            trials.push(suite.trial(name, Some(Need::Notifications), move |runtime, store| {
                runtime.block_on(run(case, store.with_notifications(notifications), LIMIT))
            }));
        }
    }
    trials
}

type Connect =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<AnyBackend, String>> + Send>> + Send + Sync;

/// What the trials of one backend share.
struct Suite {
    runtime: Handle,
    capabilities: Capabilities,
    connect: Box<Connect>,
    store: OnceCell<Result<Store, String>>,
}

impl Suite {
    fn trial(
        self: &Arc<Self>,
        name: String,
        needs: Option<Need>,
        test: impl FnOnce(&Handle, Store) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let suite = self.clone();
        let missing = needs.filter(|need| !need.is_met_by(self.capabilities));
        let trial = Trial::test(name, move || {
            if let Some(need) = missing {
                let what = need.as_str();
                return Err(format!("nothing to test: the backend does not declare {what}").into());
            }
            let runtime = suite.runtime.clone();
            if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
                // Its timers run only inside its own `block_on`, so the first trial would hang.
                return Err("expected a multi-thread runtime, but got a current-thread one".into());
            }
            let _inside = runtime.enter();
            // The last trial drops the clients, which must happen inside the runtime. Local
            // variables are dropped in reverse order.
            let suite = suite;
            let store = runtime.block_on(suite.store())?;
            test(&runtime, store)
        });
        trial.with_ignored_flag(missing.is_some())
    }

    /// The store under test. The first trial connects to it.
    async fn store(&self) -> Result<Store, String> {
        let connect = async || {
            let (one, two) = ((self.connect)().await?, (self.connect)().await?);
            let (given, found) = (self.capabilities, one.capabilities());
            if found != given {
                return Err(format!("expected the capabilities {given:?}, but got {found:?}"));
            }
            Ok(Store::new(one, two))
        };
        let limited = async || match timeout(CONNECT_LIMIT, connect()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no connection within {CONNECT_LIMIT:?}")),
        };
        self.store.get_or_init(limited).await.clone()
    }
}

/// Runs one case, which must end within the limit.
pub(crate) async fn run(case: Case, store: Store, limit: Duration) -> Result<(), Failed> {
    match timeout(limit, case.run(store)).await {
        Ok(outcome) => Ok(outcome.map_err(describe)?),
        Err(_) => {
            Err(format!("expected {case:?} to end within {limit:?}, but it still runs").into())
        }
    }
}

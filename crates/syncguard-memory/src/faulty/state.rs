//! What the clones of one [`FaultyBackend`](super::FaultyBackend) share: the faults to come and the
//! calls so far.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use syncguard_core::{Error, ErrorCode, LockId, Operation, Result, Sent};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use super::fault::{Call, Fault, Notifications};

type Rule = dyn Fn(Operation, usize) -> Fault + Send + Sync;

pub(super) struct State {
    faults: Mutex<Faults>,
    calls: Mutex<Calls>,
    notifications: Mutex<Notifications>,
    /// The notifications that reached a lossy registration.
    pub(super) notified: AtomicUsize,
    registered: AtomicUsize,
    /// Shared with every registration and with every held call: the count of owners is the gauge.
    registration: Arc<()>,
    held: Arc<()>,
    open: watch::Sender<bool>,
}

#[derive(Default)]
struct Calls {
    history: Vec<Call>,
    counts: HashMap<Operation, usize>,
}

struct Faults {
    next: VecDeque<(Operation, Fault)>,
    rule: Arc<Rule>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            faults: Mutex::new(Faults {
                next: VecDeque::new(),
                rule: Arc::new(|_, _| Fault::None),
            }),
            calls: Mutex::default(),
            notifications: Mutex::default(),
            notified: AtomicUsize::default(),
            registered: AtomicUsize::default(),
            registration: Arc::default(),
            held: Arc::default(),
            open: watch::Sender::new(false),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// No code that can panic runs while these mutexes are held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn queue_faults(&self, operation: Operation, n: usize, fault: Fault) {
        lock(&self.faults).next.extend(std::iter::repeat_n((operation, fault), n));
    }

    pub(super) fn set_rule(
        &self,
        rule: impl Fn(Operation, usize) -> Fault + Send + Sync + 'static,
    ) {
        let rule: Arc<Rule> = Arc::new(rule);
        // The old rule belongs to the caller, so it is dropped after the mutex is free.
        let _old = std::mem::replace(&mut lock(&self.faults).rule, rule);
    }

    pub(super) fn set_notifications(&self, notifications: Notifications) {
        *lock(&self.notifications) = notifications;
    }

    pub(super) fn notifications(&self) -> Notifications {
        *lock(&self.notifications)
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) fn history(&self) -> Vec<Call> {
        lock(&self.calls).history.clone()
    }

    pub(super) fn count(&self, operation: Operation) -> usize {
        lock(&self.calls).counts.get(&operation).copied().unwrap_or_default()
    }

    pub(super) fn held(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }

    pub(super) fn registrations(&self) -> usize {
        Arc::strong_count(&self.registration) - 1
    }

    pub(super) fn registrations_so_far(&self) -> usize {
        self.registered.load(Ordering::SeqCst)
    }

    /// Counts one more registration. It is live until the caller drops the value.
    pub(super) fn register(&self) -> Arc<()> {
        self.registered.fetch_add(1, Ordering::SeqCst);
        self.registration.clone()
    }

    /// Whether a lossy connection loses the notification that has arrived now.
    pub(super) fn loses_this_one(&self) -> bool {
        !self.notified.fetch_add(1, Ordering::SeqCst).is_multiple_of(2)
    }

    /// Records a call and chooses its fault.
    fn begin(&self, operation: Operation, id: Option<LockId>) -> Fault {
        let earlier = {
            let mut calls = lock(&self.calls);
            calls.history.push(Call::now(operation, id));
            let count = calls.counts.entry(operation).or_default();
            *count += 1;
            *count - 1
        };
        let rule = {
            let mut faults = lock(&self.faults);
            let queued = faults.next.iter().position(|(of, _)| *of == operation);
            match queued.and_then(|index| faults.next.remove(index)) {
                Some((_, fault)) => return fault,
                None => faults.rule.clone(),
            }
        };
        rule(operation, earlier)
    }

    /// Makes one call with the fault that is chosen for it.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        id: Option<LockId>,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.call_marking(operation, id, &Sent::default(), call).await
    }

    /// Like [`call`](Self::call), and marks `sent` unless the fault says that nothing is sent.
    pub(super) async fn call_marking<T: Send + 'static>(
        &self,
        operation: Operation,
        id: Option<LockId>,
        sent: &Sent,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let failed = |code| Error::new(code, operation).with_source("injected by FaultyBackend");
        let fault = self.begin(operation, id);
        if !matches!(fault, Fault::FailUnsent(_) | Fault::HangUnsent) {
            sent.mark();
        }
        match fault {
            Fault::None => call.await,
            Fault::Fail(code) | Fault::FailUnsent(code) => Err(failed(code)),
            Fault::LoseReply(code) => {
                call.await?;
                Err(failed(code))
            }
            Fault::DelayRequest(by) => {
                sleep(by).await;
                call.await
            }
            Fault::DelayReply(by) => {
                let reply = call.await;
                sleep(by).await;
                reply
            }
            Fault::Hang | Fault::HangUnsent => pending().await,
            Fault::HoldRequest => {
                self.opened().await;
                call.await
            }
            Fault::HoldReply => {
                let reply = call.await;
                self.opened().await;
                reply
            }
            Fault::LandLate(by) => {
                // The caller's future may be dropped: the request lands all the same.
                drop(Handle::current().spawn(async move {
                    sleep(by).await;
                    call.await
                }));
                Err(failed(ErrorCode::NetworkTimeout))
            }
            Fault::Panic => panic!("a panic injected by FaultyBackend"),
        }
    }

    async fn opened(&self) {
        let _held = self.held.clone();
        // It fails only if the sender is gone, and the sender lives in `self`.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

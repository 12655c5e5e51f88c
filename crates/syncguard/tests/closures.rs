//! The shapes of closure that users hand to `run`, and the bounds they rely on: a compile test.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::Arc;

use syncguard::{Error, ErrorCode, LockGuard, LockManager, LockRequest, Result};
use syncguard_memory::MemoryBackend;

fn send<T: Send>(value: T) -> T {
    value
}

fn send_static<T: Send + 'static>(value: T) -> T {
    value
}

fn send_sync<T: Send + Sync + 'static>() {}

#[test]
fn types_and_the_futures_of_their_verbs_are_send_and_static() {
    send_sync::<LockManager>();
    send_sync::<LockGuard>();
    fn verbs(request: fn() -> LockRequest, guard: LockGuard) {
        drop(send_static(request().acquire()));
        drop(send_static(request().try_acquire()));
        drop(send_static(request().run(async |lock| -> Result<_> { Ok(lock.fence()) })));
        drop(send_static(guard.release()));
    }
    let _ = verbs;
}

trait Charge: Sync {
    fn charge<'a>(
        &'a self,
        fence: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::result::Result<u64, String>> + Send + 'a>>;
}

struct Bank;

impl Charge for Bank {
    fn charge<'a>(
        &'a self,
        fence: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::result::Result<u64, String>> + Send + 'a>> {
        Box::pin(async move { Ok(fence) })
    }
}

struct Service<'a> {
    name: &'a str,
    bank: &'a dyn Charge,
}

/// A service's own error, as most have one.
#[derive(Debug)]
enum PaymentError {
    Refused(String),
    Locking(Error),
}

impl From<Error> for PaymentError {
    fn from(error: Error) -> Self {
        Self::Locking(error)
    }
}

impl From<String> for PaymentError {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl Service<'_> {
    /// As the last expression, the closure takes its error type from the function.
    async fn pay(&self, locks: &LockManager) -> Result<u64, PaymentError> {
        let paid = locks.lock(self.name).run(async |lock| {
            tokio::task::yield_now().await;
            Ok(self.bank.charge(lock.fence().get()).await?)
        });
        send(paid).await
    }

    /// In the middle of a function, the closure names its error type.
    async fn pay_and_log(&self, locks: &LockManager) -> Result<String, PaymentError> {
        let paid = locks
            .lock(self.name)
            .run(async |lock| -> Result<_, PaymentError> {
                Ok(self.bank.charge(lock.fence().get()).await?)
            })
            .await?;
        Ok(format!("paid {paid}"))
    }

    /// An error without any type of its own.
    async fn pay_boxed(&self, locks: &LockManager) -> Result<u64, Box<dyn std::error::Error>> {
        let work = async |lock: &LockGuard| Ok(self.bank.charge(lock.fence().get()).await?);
        locks.lock(self.name).run(work).await
    }
}

async fn by_reference(lock: &LockGuard) -> Result<u64> {
    tokio::task::yield_now().await;
    Ok(lock.fence().get())
}

/// A user's own helper around `run`.
async fn exclusively<T>(
    locks: &LockManager,
    work: impl AsyncFnOnce(&LockGuard) -> Result<T>,
) -> Result<T> {
    locks.lock("generic").run(work).await
}

#[tokio::test]
async fn closures_of_every_shape_compile_and_stay_send() {
    let locks = LockManager::new(MemoryBackend::new());
    let handle = tokio::runtime::Handle::current();

    assert_eq!(send(locks.lock("function").run(by_reference)).await.unwrap(), 1);

    let mut counter = HashMap::new();
    for _ in 0..2 {
        let work = locks.lock("by-mut-reference").run(async |lock| -> Result<()> {
            tokio::task::yield_now().await;
            *counter.entry("runs").or_insert(0) += lock.fence().get();
            Ok(())
        });
        send(work).await.unwrap();
    }
    assert_eq!(counter["runs"], 3);

    let bank = Bank;
    let name = String::from("service");
    let service = Service { name: &name, bank: &bank };
    assert_eq!(send(service.pay(&locks)).await.unwrap(), 1);
    assert_eq!(service.pay_and_log(&locks).await.unwrap(), "paid 2");
    assert_eq!(service.pay_boxed(&locks).await.unwrap(), 3);

    let moved = Arc::new(String::from("moved"));
    let spawned = handle.spawn(locks.lock("spawned").run({
        let moved = moved.clone();
        async move |lock: &LockGuard| -> Result<_> {
            tokio::task::yield_now().await;
            Ok(format!("{moved} {}", lock.fence()))
        }
    }));
    assert_eq!(spawned.await.unwrap().unwrap(), "moved 000000000000001");

    assert_eq!(exclusively(&locks, by_reference).await.unwrap(), 1);
    let text = String::from("borrowed");
    let borrowed = exclusively(&locks, async |_| Ok(text.as_str()));
    assert_eq!(send(borrowed).await.unwrap(), "borrowed");

    let raced = async {
        tokio::select! {
            value = locks.lock("raced").run(async |lock| by_reference(lock).await) => value.unwrap(),
            () = std::future::pending() => 0,
        }
    };
    assert_eq!(send(raced).await, 1);
}

#[tokio::test]
async fn h6_an_error_of_the_work_and_one_of_the_lock_are_one_type() {
    let locks = LockManager::new(MemoryBackend::new());
    let refused = async |_: &LockGuard| Err::<(), _>(PaymentError::Refused("no money".into()));
    match locks.lock("fallible").run(refused).await {
        Err(PaymentError::Refused(reason)) => assert_eq!(reason, "no money"),
        other => panic!("expected the error of the work, but it was {other:?}"),
    }
    match locks.lock("").run(refused).await {
        Err(PaymentError::Locking(error)) => assert_eq!(error.code(), ErrorCode::InvalidArgument),
        other => panic!("expected the error of the lock, but it was {other:?}"),
    }
}

//! The shapes of closure that users hand to `run`, and the bounds they rely on: a compile test.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::sync::Arc;

use syncguard::{Error, LockGuard, LockManager, LockRequest};
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
        drop(send_static(request().run(async |lock| lock.fence())));
        drop(send_static(guard.release()));
    }
    let _ = verbs;
}

trait Charge: Sync {
    fn charge<'a>(
        &'a self,
        fence: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<u64, String>> + Send + 'a>>;
}

struct Bank;

impl Charge for Bank {
    fn charge<'a>(
        &'a self,
        fence: u64,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<u64, String>> + Send + 'a>> {
        Box::pin(async move { Ok(fence) })
    }
}

struct Service<'a> {
    name: &'a str,
    bank: &'a dyn Charge,
}

impl Service<'_> {
    async fn pay(&self, locks: &LockManager) -> Result<u64, Error> {
        let paid = locks.lock(self.name).run(async |lock| {
            tokio::task::yield_now().await;
            self.bank.charge(lock.fence().get()).await
        });
        Ok(send(paid).await?.unwrap())
    }
}

async fn by_reference(lock: &LockGuard) -> u64 {
    tokio::task::yield_now().await;
    lock.fence().get()
}

/// A user's own helper around `run`.
async fn exclusively<T>(locks: &LockManager, work: impl AsyncFnOnce(&LockGuard) -> T) -> T {
    locks.lock("generic").keep_alive().run(work).await.unwrap()
}

#[tokio::test]
async fn closures_of_every_shape_compile_and_stay_send() {
    let locks = LockManager::new(MemoryBackend::new());
    let handle = tokio::runtime::Handle::current();

    assert_eq!(send(locks.lock("function").run(by_reference)).await.unwrap(), 1);

    let mut counter = HashMap::new();
    for _ in 0..2 {
        let work = locks.lock("by-mut-reference").run(async |lock| {
            tokio::task::yield_now().await;
            *counter.entry("runs").or_insert(0) += lock.fence().get();
        });
        send(work).await.unwrap();
    }
    assert_eq!(counter["runs"], 3);

    let bank = Bank;
    let name = String::from("service");
    let service = Service { name: &name, bank: &bank };
    assert_eq!(send(service.pay(&locks)).await.unwrap(), 1);

    let moved = Arc::new(String::from("moved"));
    let spawned = handle.spawn(locks.lock("spawned").keep_alive().run({
        let moved = moved.clone();
        async move |lock: &LockGuard| {
            tokio::task::yield_now().await;
            format!("{moved} {}", lock.fence())
        }
    }));
    assert_eq!(spawned.await.unwrap().unwrap(), "moved 000000000000001");

    assert_eq!(exclusively(&locks, by_reference).await, 1);
    let text = String::from("borrowed");
    let borrowed = exclusively(&locks, async |_| text.as_str());
    assert_eq!(send(borrowed).await, "borrowed");

    let raced = async {
        tokio::select! {
            value = locks.lock("raced").run(async |lock| by_reference(lock).await) => value.unwrap(),
            () = std::future::pending() => 0,
        }
    };
    assert_eq!(send(raced).await, 1);

    let failed: Result<(), String> =
        locks.lock("fallible").run(async |_| Err("no".to_owned())).await.unwrap();
    assert_eq!(failed.unwrap_err(), "no");
}

//! SyncGuard locks within one process: the whole contract, without a server.
//!
//! Use it in tests, in a program that runs only once, and as an example for a backend of your own:
//! `store.rs` is the contract in code, and `backend.rs` implements the trait with it.
//!
//! Leases follow tokio's clock, so `tokio::time::pause` and `advance` move them too. A test that moves
//! only the time of the leases uses a [`ManualClock`]. A test of failures uses a [`FaultyBackend`]:
//! lost replies, delays, a server that is down, a lease that is lost.
//!
//! ```
//! use syncguard_memory::{Acquired, Backend, Key, LockId, ManualClock, MemoryBackend};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard_memory::Error> {
//! let clock = ManualClock::new();
//! let backend = MemoryBackend::with_clock(&clock);
//! let (key, ttl) = (Key::new("report")?, Duration::from_secs(10).try_into()?);
//!
//! let first = backend.acquire(&key, &LockId::random()?, ttl).await?;
//! assert!(matches!(first, Acquired::Granted(_)));
//! assert!(matches!(backend.acquire(&key, &LockId::random()?, ttl).await?, Acquired::Held { .. }));
//!
//! clock.advance(Duration::from_secs(11));
//! let second = backend.acquire(&key, &LockId::random()?, ttl).await?;
//! assert!(matches!(second, Acquired::Granted(lease) if lease.fence().get() == 2));
//! # Ok(()) }
//! ```

mod backend;
mod clock;
mod faulty;
mod store;

pub use backend::MemoryBackend;
pub use clock::ManualClock;
pub use faulty::{Call, Fault, FaultyBackend, Notifications};
#[doc(inline)]
pub use syncguard::*;

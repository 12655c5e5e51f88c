//! SyncGuard locks within one process: the whole contract, without a server.
//!
//! Use it in tests, in a program that runs in one copy, and as the place to look when you write a
//! backend of your own: `store.rs` is the contract in code, `backend.rs` is how it meets the trait.
//!
//! Time follows tokio's clock, so `tokio::time::pause` and `advance` move it too. A test that needs
//! to move a lease's time alone takes a [`ManualClock`].
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

//! Locks for programs without async: the lock manager, the request and the guard, with methods that
//! block the calling thread.
//!
//! It needs the feature `blocking`. Every backend crate has that feature too.
//!
//! ```
//! use syncguard_memory::MemoryBackend;
//! use syncguard::{Result, blocking::LockManager};
//!
//! fn main() -> Result<()> {
//!     let locks = LockManager::connect(async { Ok(MemoryBackend::new()) })?;
//!     let guard = locks.lock("invoice:7").acquire()?;
//!     println!("holding with fence {}", guard.fence());
//!     guard.release()?;
//!     locks.shutdown()
//! }
//! ```
//!
//! Another backend changes only the future that connects:
//!
//! | backend | future |
//! |---|---|
//! | memory | `async { Ok(MemoryBackend::new()) }` |
//! | Redis | `RedisBackend::connect("redis://localhost")` |
//! | Postgres | `PostgresBackend::connect("postgres://localhost/app")` |
//! | Firestore | `FirestoreBackend::connect("my-project")` |
//!
//! # Threads
//!
//! A lock manager of this module starts one thread, named `syncguard`. It drives a small tokio runtime
//! for connections, timers, renewals and background releases. Your own threads never run on it, so
//! renewals go on while a thread that holds a lock computes, sleeps or waits for a disk.
//!
//! All types are `Send` and `Sync`. Clone the manager for each thread, or share a reference. Threads
//! that wait for the same key form one queue.
//!
//! # Inside a tokio runtime
//!
//! A method that blocks would stop the tasks of the runtime that calls it. So it returns
//! [`InvalidArgument`](crate::ErrorCode::InvalidArgument) there, and does not panic. This includes
//! `spawn_blocking`, `block_in_place` and threads that entered a runtime with `Handle::enter`. Use the
//! async [`LockManager`](crate::LockManager) there, and call its methods through `Handle::block_on`
//! from code that is not async.
//!
//! Plain getters work everywhere. Managers and guards may be dropped everywhere.

mod guard;
mod manager;
mod request;
mod run;
mod runtime;

pub use guard::LockGuard;
pub use manager::LockManager;
pub use request::LockRequest;

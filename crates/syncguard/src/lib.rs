//! The runtime of SyncGuard: waiting, holding, renewing and releasing, on top of any
//! [`Backend`].
//!
//! A service depends on a backend crate, such as `syncguard-redis`, which brings all names from
//! here. Depend on this crate to write code for any backend.
//!
//! | | |
//! |---|---|
//! | [`LockManager`] | locks on one backend; the entry point |
//! | [`LockRequest`] | what to ask for, and the verbs `acquire`, `try_acquire`, `run`, `adopt` |
//! | [`LockGuard`] | a lock that is held |
//! | [`Election`], [`Term`], [`Leadership`] | leader election on the same locks |
//! | [`Backoff`], [`Jitter`] | pauses between attempts |
//! | [`Event`], [`Outcome`], [`Reason`] | what an observer is told |
//! | `blocking` | the same for programs without async, with the feature `blocking` |
//!
//! # What it promises
//!
//! - A future of this crate may be dropped at any await point; no lease leaks.
//! - A guard may be dropped anywhere, also outside a runtime; its lease is released in the
//!   background, and [`LockManager::shutdown`] finishes what is under way.
//! - Loss of a lease is signalled at the latest when its time is up on this machine's monotonic
//!   clock, by a timer that waits for no I/O.
//!
//! # What it does not promise
//!
//! A lease is not a mutex: a process that is paused for longer than its TTL goes on for a moment
//! without the lock. Where that can do harm, hand [`LockGuard::fence`] to the protected resource
//! and let it refuse a lower fence than it has seen.
//!
//! # Tracing
//!
//! Span `syncguard.acquire` (level `DEBUG`) covers a wait, with `key`, `attempts` and, after a
//! failure, `code`. Span `syncguard` (`DEBUG`) covers each operation on the backend, with
//! `operation`, `key`, `id` and `code`. Keys and ids are fingerprints.

mod attempt;
mod background;
mod backoff;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod election;
mod ending;
mod errand;
mod event;
mod extension;
mod fences;
mod give_up;
mod guard;
mod in_flight;
mod keeper;
mod lease;
mod limits;
mod loss;
mod manager;
mod observe;
mod preflight;
mod queue;
mod queues;
mod request;
mod run;
mod runtime;
mod schedule;
mod settings;
mod shared;
mod subscription;
mod ticket;
mod turns;
mod undo;
mod undos;
mod wait;
mod wait_report;

pub use backoff::{Backoff, Jitter};
pub use builder::LockManagerBuilder;
pub use election::{Election, Leadership, Observation, Term, WorkGuard};
pub use event::{Event, Outcome, Reason};
pub use guard::LockGuard;
pub use manager::LockManager;
pub use request::LockRequest;
pub use syncguard_core::{
    Acquired, AnyBackend, Backend, Capabilities, Clock, Error, ErrorCode, Fence, Finding,
    Fingerprint, InvalidFence, InvalidKey, InvalidLockId, InvalidPublication, InvalidTtl, Key,
    Lease, Level, LockId, LockRecord, Operation, Publication, Result, Sent, Timestamp, Ttl,
};
pub use tokio_util::sync::CancellationToken;

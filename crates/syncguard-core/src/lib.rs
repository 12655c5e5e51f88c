//! The contract of SyncGuard distributed locks, without I/O and without a runtime.
//!
//! - *To use locks*, depend on a backend crate, such as `syncguard-redis`. It exports everything
//!   that you need, including the types of this crate.
//! - *To support another store*, depend on this crate and implement [`Backend`]. The crate
//!   `syncguard-memory` is a complete example. The suite in `syncguard-contract` checks your
//!   implementation.
//!
//! # What a lock is
//!
//! A lock is a *lease*: one grant of one [`Key`] to one [`LockId`] for a [`Ttl`]. While a lease is
//! live, no other caller is granted its key. A lease ends when its holder releases it or when its
//! TTL is over, so the locks of a crashed process become free without help.
//!
//! Each grant carries a [`Fence`], a number that is higher than all earlier ones of its key. A
//! holder that was paused for too long may not know that its lease has ended. The resource that the
//! lock protects can recognize such a holder by its lower fence and refuse its write.
//!
//! The module [`contract`] lists all guarantees as numbered clauses, such as A1. The documentation
//! of this crate cites them.
//!
//! # What this crate contains
//!
//! | items | purpose |
//! |---|---|
//! | [`Key`], [`LockId`], [`Fence`], [`Ttl`], [`Timestamp`] | values that are validated once, when they are made |
//! | [`Lease`], [`LockRecord`] | a grant, and what a lookup returns |
//! | [`Backend`], [`Acquired`], [`Capabilities`], [`Clock`] | what a store implements |
//! | [`AnyBackend`] | any backend behind one type |
//! | [`KeySpace`] | the names of keys in a store, the same in every SyncGuard client |
//! | [`is_live`], [`TOLERANCE`] | whether a lease still counts |
//! | [`Error`], [`ErrorCode`], [`Operation`] | why an operation failed |
//! | [`Publication`] | what a leader publishes beside its lock |
//! | [`Sent`] | whether a request has left the process |
//! | [`Finding`], [`Level`] | what a preflight finds out about a store |
//! | [`Fingerprint`] | short names for logs |
//!
//! # Features
//!
//! - `sqlx`: a [`Fence`] can be bound to a query and read from a row as `BIGINT`, with sqlx 0.9.
//!   `syncguard-postgres` enables it.

// Cargo documents the crates of a workspace in any order. Without this URL, a crate that comes
// before this one gets dead links to the items of this one.
#![doc(html_root_url = "https://docs.rs/syncguard-core/latest")]

mod any_backend;
mod backend;
mod capabilities;
mod error;
mod fence;
mod finding;
mod fingerprint;
mod key;
mod key_space;
mod lease;
mod lock_id;
mod operation;
mod publication;
mod sent;
mod subject;
mod timestamp;
mod ttl;

pub use any_backend::AnyBackend;
pub use backend::{Acquired, Backend};
pub use capabilities::{Capabilities, Clock};
pub use error::{Error, ErrorCode, Result};
pub use fence::{Fence, InvalidFence};
pub use finding::{Finding, Level};
pub use fingerprint::Fingerprint;
pub use key::{InvalidKey, Key};
pub use key_space::{InvalidPrefix, KeySpace};
pub use lease::{Lease, LockRecord};
pub use lock_id::{InvalidLockId, LockId};
pub use operation::Operation;
pub use publication::{InvalidPublication, Publication};
pub use sent::Sent;
pub use timestamp::{TOLERANCE, Timestamp, is_live};
pub use ttl::{InvalidTtl, Ttl};

#[doc = include_str!("../CONTRACT.md")]
pub mod contract {}

//! The contract of SyncGuard distributed locks, without I/O and without a runtime.
//!
//! - *To use locks*, depend on a backend crate, such as `syncguard-redis`. It brings what you need
//!   from here.
//! - *To carry locks on another store*, depend on this crate and implement [`Backend`]. The crate
//!   `syncguard-memory` is a worked example; `contract-tests` proves your implementation.
//!
//! # What a lock is
//!
//! A *lease*: one grant of one [`Key`] to one [`LockId`] for a [`Ttl`]. While it is live nobody
//! else is granted the key. It ends by release or by time, so a crashed holder blocks nobody for
//! long. Each grant carries a [`Fence`], higher than all earlier ones of its key, with which the
//! protected resource can refuse a holder that does not know yet that its lease has ended.
//!
//! # What is here
//!
//! | | |
//! |---|---|
//! | [`Key`], [`LockId`], [`Fence`], [`Ttl`], [`Timestamp`] | values that are checked once, when made |
//! | [`Lease`], [`LockRecord`] | a grant, and what a look-up shows of it |
//! | [`Backend`], [`Acquired`], [`Capabilities`], [`Clock`] | what a store implements |
//! | [`AnyBackend`] | any backend behind one type |
//! | [`KeySpace`] | how keys are named in a store, the same in every SyncGuard client |
//! | [`is_live`], [`TOLERANCE`] | the one predicate about time |
//! | [`Error`], [`ErrorCode`], [`Operation`] | what went wrong |
//! | [`Fingerprint`] | names for logs |

mod any_backend;
mod backend;
mod capabilities;
mod error;
mod fence;
mod fingerprint;
mod key;
mod key_space;
mod lease;
mod lock_id;
mod timestamp;
mod ttl;

pub use any_backend::AnyBackend;
pub use backend::{Acquired, Backend};
pub use capabilities::{Capabilities, Clock};
pub use error::{Error, ErrorCode, Operation, Result};
pub use fence::{Fence, InvalidFence};
pub use fingerprint::Fingerprint;
pub use key::{InvalidKey, Key};
pub use key_space::{InvalidPrefix, KeySpace};
pub use lease::{Lease, LockRecord};
pub use lock_id::{InvalidLockId, LockId};
pub use timestamp::{TOLERANCE, Timestamp, is_live};
pub use ttl::{InvalidTtl, Ttl};

#[doc = include_str!("../CONTRACT.md")]
pub mod contract {}

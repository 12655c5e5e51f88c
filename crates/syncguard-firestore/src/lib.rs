//! SyncGuard locks in Google Cloud Firestore, without a server of their own.
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_firestore::{FirestoreBackend, LockManager, Result};
//!
//! # async fn f() -> Result<()> {
//! let locks = LockManager::new(FirestoreBackend::connect("my-project").await?);
//!
//! let guard = locks.lock("report:daily").ttl(Duration::from_secs(60)).acquire().await?;
//! // Hand `guard.fence()` to whatever the lock protects.
//! guard.release().await?;
//! # Ok(()) }
//! ```
//!
//! [`FirestoreBackend::builder`] sets database, collections and limits, and takes a client of yours.
//! With `FIRESTORE_EMULATOR_HOST` in the environment the emulator is used, without credentials.
//! Locks and fences are shared with SyncGuard for TypeScript on the same collections.
//!
//! # How it works
//!
//! A key has two documents: one in `locks`, which is there while the key is locked, and one in
//! `fence_counters`, which stays. Each change is one atomic commit whose preconditions say that the
//! documents are still as they were read. There are no server-side transactions, so nothing is
//! locked while a client thinks, or dies. A commit that is refused is decided anew, a few times;
//! if others get in first each time, the key is *held*. SyncGuard for TypeScript does use
//! transactions, which lock what they read until they end: where it shares a key, a commit may wait
//! for one of them or be refused.
//!
//! | operation | requests | billed |
//! |---|---|---|
//! | acquire | 2 (read both, commit) | 2 reads, 2 writes |
//! | acquire, held by another | 1 | 2 reads |
//! | extend, with the guard | 1 | 1 write |
//! | release, with the guard | 1 | 1 delete |
//! | extend or release by id | 2 (query, commit) | 1 read, and 1 write or delete |
//! | get, find | 1 | 1 read |
//!
//! Extend and release with a guard recognise the lock document by its update time, which the lease
//! keeps as its [revision](Lease::revision). If that has changed, because the lease was also
//! extended by its id, they cost a read and a commit more. Keep to one change of a key per second
//! or so: that is what Firestore sustains on one document.
//!
//! This is how the Standard edition bills. The Enterprise edition bills by the amount of data that
//! is read and written.
//!
//! # Waiting
//!
//! Those who wait for a lock try again by timer: at its end, or after a back-off. Each attempt that
//! finds it held is billed as 2 reads. With
//! [`notifications(true)`](FirestoreBackendBuilder::notifications) they are also told when it is
//! released. The backend then listens to the lock documents that somebody in this process waits
//! for: on one stream for all clones, on the connection that is there anyway, and to each document
//! once, however many wait for it. The stream is opened by the first who waits.
//!
//! It is off by default, because what a listener is told is billed, to each process that listens
//! (Standard edition; the Enterprise edition counts real-time update units instead):
//!
//! | what is told | billed |
//! |---|---|
//! | the document as it is, when the first in the process begins to wait for it | 1 read |
//! | the same, for each that is waited for when the stream was lost and is opened again | 1 read |
//! | a change: **each renewal by its holder**, and the next grant | 1 read |
//! | its deletion, by a release | nothing |
//! | the connection, and a stream without documents | nothing |
//!
//! A waiter also tries again when its notifications begin, because a release before that may have
//! caused none. So notifications pay if locks are held for long and seldom renewed, or if a lock
//! must be passed on at once. If short waits are common, the timer may cost less. Google's [price
//! list](https://cloud.google.com/firestore/pricing) has the last word.
//!
//! Any client that deletes a lock document wakes waiters, for example a release by SyncGuard for
//! TypeScript, which knows nothing of notifications. A renewal or the next grant wakes no waiter,
//! and neither does a lease that expires, so waiters also have a timer. If the backend cannot
//! listen, only the timer is left, and one `tracing` warning says so. The backend opens the stream
//! again, with growing pauses of up to 30 seconds, while there are waiters. A notification can be
//! lost, and then the wait ends by timer.
//!
//! # Connections that vanish
//!
//! All operations share one connection. If it is closed or refused, they fail at once and the next
//! one connects anew. If it vanishes silently (a NAT or a firewall forgets it, a network is
//! unplugged), every operation fails with [`NetworkTimeout`](ErrorCode::NetworkTimeout) until that
//! is noticed: the SDK pings each minute and waits a minute for the answer, so this can go on for
//! **two minutes**. A lease that ends before is lost, even if it is kept alive. Where that matters,
//! take a TTL of four minutes or more: a lease that is renewed at a third of its TTL then always has
//! more than two minutes left.
//!
//! # Clocks
//!
//! Firestore has no clock that a condition could ask, so **each client's own clock decides** whether
//! a lease is live ([`Clock::Client`]). A lease counts as live until 1 second (the tolerance) after
//! its expiry, and that second is all that covers a difference between clocks:
//!
//! - *Within 1 second* locks are exclusive: a client takes a key over only after its holder's time
//!   is up.
//! - *A clock that is further ahead* takes a key over while its holder still counts on it. Then only
//!   the [fence](Fence) protects: a resource that refuses lower fences than it has seen is safe with
//!   any clocks.
//! - *A clock that is further behind* leaves dead leases alone for longer, and its own leases are
//!   taken over early by all others.
//!
//! So run a time service (on Google Cloud that is the default) and watch it. Every reply of
//! Firestore carries its time, and is compared with the clock: when this machine is certainly off by
//! more than half the tolerance (500 ms), one warning goes to `tracing`.
//! [`FirestoreBackend::clock_offset`] gives the number; alert on it at 500 ms, since two machines
//! that are each closer than that to Firestore agree within the tolerance.
//!
//! Whether a lease is live is decided just before the commit is sent. So an extend that is slow on
//! its way can be applied to a lease that has ended meanwhile, if nobody else took the key: it never
//! harms a successor, whose document has another update time.
//!
//! # Setting up
//!
//! - **Database**: Firestore in Native mode. Collections make themselves.
//! - **IAM**: the service account needs `roles/datastore.user`.
//! - **Security rules** do not apply to service accounts; keep web and mobile clients out:
//!   ```text
//!   match /locks/{lock}            { allow read, write: if false; }
//!   match /fence_counters/{fence}  { allow read, write: if false; }
//!   ```
//! - **Indexes**: operations by id query `lockId`, with the ascending single-field index that
//!   Firestore makes by itself in the Standard edition. If automatic indexes are off, add that one.
//!   The other fields are never queried; exempt `expiresAtMs`, `acquiredAtMs`, `key` and `fence` in
//!   `locks`, and `fence` and `keyDebug` in `fence_counters`: this saves storage and latency, though
//!   not billed writes, and an index of rising times limits a collection to about 500 writes per
//!   second. The Enterprise edition makes no index by itself and scans the collection without:
//!   create the one on `lockId`, and no other.
//! - **Dead locks**: release deletes the document; that of a holder that crashed stays until its key
//!   is locked again. Firestore's TTL policies cannot remove it, since they want a timestamp and
//!   `expiresAtMs` is a number. If there are many keys that are never locked again, let a scheduled
//!   job query for an `expiresAtMs` of a day ago (then keep its index) and delete each with its
//!   update time as the precondition, so that a lock that was just taken stays.
//! - **Fence counters**: never delete one, by a TTL policy, a job or by hand. Fences that begin
//!   again below those already seen protect nothing. All services that share locks must name the
//!   same fence collection, or each counts for itself. Restoring a backup, importing, and going
//!   back to a point in time set the counters back: raise them above every fence that a resource
//!   may have seen before locks are taken again. (An acquisition also stays above the fence in the
//!   lock document, if a dead one is there; do not count on that.)
//!
//! A key that cannot be a document id (it contains `/`, is `.` or `..`, or begins and ends with
//! `__`) is stored under a hash. SyncGuard for TypeScript fails on most of these, or stores them
//! elsewhere: do not share them with it.
//!
//! # Errors
//!
//! By gRPC status, whatever its text; the status is the error's
//! [`source`](std::error::Error::source), and may quote document names.
//!
//! | status | [`ErrorCode`] | |
//! |---|---|---|
//! | `UNAUTHENTICATED`, `PERMISSION_DENIED` | [`AuthFailed`](ErrorCode::AuthFailed) | or the API is not enabled |
//! | `DEADLINE_EXCEEDED` | [`NetworkTimeout`](ErrorCode::NetworkTimeout) | |
//! | `RESOURCE_EXHAUSTED` | [`RateLimited`](ErrorCode::RateLimited) | a quota |
//! | `INVALID_ARGUMENT` | [`InvalidArgument`](ErrorCode::InvalidArgument) | |
//! | `FAILED_PRECONDITION` | [`InvalidArgument`](ErrorCode::InvalidArgument) | an index is missing, or the database is in Datastore mode |
//! | `NOT_FOUND` | [`InvalidArgument`](ErrorCode::InvalidArgument) | the database is missing |
//! | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `CANCELLED`, `ABORTED` | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) | also a connection that was refused or lost |
//! | `ALREADY_EXISTS`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `DATA_LOSS`, `OK` | [`Internal`](ErrorCode::Internal) | |
//!
//! Of a commit, `FAILED_PRECONDITION`, `ALREADY_EXISTS`, `NOT_FOUND` and `ABORTED` are no errors but
//! mean that a document moved: it is read again. An extend or release that loses that race ten
//! times is [`ServiceUnavailable`](ErrorCode::ServiceUnavailable).
//!
//! On this side: no credentials, or credentials that are refused, are
//! [`AuthFailed`](ErrorCode::AuthFailed); a token server that cannot be reached is
//! [`ServiceUnavailable`](ErrorCode::ServiceUnavailable); and an operation over the [time
//! limit](FirestoreBackendBuilder::time_limit) is [`NetworkTimeout`](ErrorCode::NetworkTimeout).
//! What is stored but cannot be read is [`Internal`](ErrorCode::Internal).
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tls-webpki-roots` | yes | TLS with Mozilla's root certificates |
//! | `auth-default-crypto` | yes | signs with service account keys; without it, install a rustls `CryptoProvider` |
//!
//! The SDK needs TLS: for the root certificates of the system, turn `tls-webpki-roots` off and
//! `gcloud-sdk/tls-roots` on, which wants OpenSSL's headers.

mod backend;
mod clock;
mod config;
mod document;
mod error;
mod listener;
mod steps;
mod store;
mod targets;

pub use gcloud_sdk;

pub use backend::FirestoreBackend;
pub use clock::ClockOffset;
pub use config::FirestoreBackendBuilder;
#[doc(inline)]
pub use syncguard::*;

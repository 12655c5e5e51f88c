//! SyncGuard locks in Google Cloud Firestore, without a server of your own.
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_firestore::{FirestoreBackend, LockManager, Result};
//!
//! # async fn f() -> Result<()> {
//! let locks = LockManager::new(FirestoreBackend::connect("my-project").await?);
//!
//! let guard = locks.lock("report:daily").ttl(Duration::from_secs(60)).acquire().await?;
//! // Pass `guard.fence()` to the resource that the lock protects.
//! guard.release().await?;
//! # Ok(()) }
//! ```
//!
//! [`FirestoreBackend::builder`] sets the database, collections, credentials and timeouts. If
//! `FIRESTORE_EMULATOR_HOST` is set, the backend connects to that emulator, without credentials.
//!
//! # The connection to use
//!
//! Let the backend make its own connection, with `connect`. One HTTP/2 connection carries all
//! operations of all clones, so a lease never waits for a free connection. The backend tests and
//! replaces it, as [Recovery](#recovery) describes.
//! [`build`](FirestoreBackendBuilder::build) takes a client of the SDK that you made. Use it only if you
//! need headers or middleware of your own: the backend cannot replace that client's connection.
//!
//! # How it works
//!
//! A key has two documents: one in `locks`, which exists while the key is locked, and one in
//! `fence_counters`, which stays. A leader that publishes adds one in `leaders`. Each change is one atomic commit. Its preconditions say that the
//! documents are still as they were read. There are no server-side transactions, so nothing stays
//! locked if a client pauses or dies. If a commit is refused, the backend reads and decides again, up to
//! ten times. If other clients win each time, the key is *held*. SyncGuard for TypeScript uses
//! transactions, which lock the documents that they read. Where it shares a key, a commit may wait for
//! such a transaction, or be refused.
//!
//! | operation | requests | billed |
//! |---|---|---|
//! | acquire | 2 (read both, commit) | 2 reads, 2 writes |
//! | acquire, held by another | 1 | 2 reads |
//! | extend, with the guard | 1 | 1 write |
//! | release, with the guard | 1 | 1 delete |
//! | extend or release by id | 2 (query, commit) | 1 read, and 1 write or delete |
//! | get, find | 1 | 1 read |
//! | publish | 2 (read, commit) | 1 read, 1 write |
//! | withdraw | 2 (read, commit) | 1 read, 1 delete |
//! | published | 1 | 1 read |
//!
//! Extend and release with a guard recognize the lock document by its update time, which the lease
//! keeps as its [revision](Lease::revision). If the update time has changed, because the lease was also
//! extended by its id, they cost one more read and commit. Keep to about one change of a key per second:
//! Firestore sustains no more on one document.
//!
//! This is how the Standard edition bills. The Enterprise edition bills by the amount of data that is
//! read and written.
//!
//! # Waiting
//!
//! A waiter tries again by timer: when the lease ends, or after a backoff. Each attempt that finds the
//! key held is billed as 2 reads. With [`notifications(true)`](FirestoreBackendBuilder::notifications),
//! a waiter also hears of a release. The backend then listens to the lock documents that waiters of this
//! process wait for: on one stream for all clones, and to each document once, however many wait for it.
//! The first waiter opens the stream.
//!
//! Notifications are off by default, because each process that listens pays for what it hears (Standard
//! edition; the Enterprise edition counts real-time update units):
//!
//! | what Firestore sends | billed |
//! |---|---|
//! | the document, when the first waiter of the process begins to wait for it | 1 read |
//! | the document of each key that somebody waits for, when the stream is opened again | 1 read |
//! | a change: **each renewal by the holder**, and the next grant | 1 read |
//! | the deletion, by a release | nothing |
//! | the connection, and a stream without documents | nothing |
//!
//! A waiter also tries again when its notifications begin, because an earlier release may have caused
//! none. So notifications pay if locks are held for long and seldom renewed, or if a lock must be passed
//! on at once. If short waits are common, the timer may cost less. Google's [price
//! list](https://cloud.google.com/firestore/pricing) decides.
//!
//! Any client that deletes a lock document wakes waiters, so a release by SyncGuard for TypeScript does
//! as well. A renewal, the next grant and an expiry wake nobody. If the backend cannot listen, waiters
//! have only the timer, and one `tracing` warning says so. While there are waiters, the backend opens the
//! stream again, with growing pauses of up to 30 seconds. A notification can be lost; then the wait
//! ends by timer.
//!
//! # Recovery
//!
//! The same backend goes on after each of these, with default settings. Keep the [command
//! timeout](FirestoreBackendBuilder::command_timeout) (5 s) at no more than half of the shortest TTL.
//! The times were measured on the emulator.
//!
//! | what happens | what callers see | works again |
//! |---|---|---|
//! | the connection is closed, or the server restarts | one [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) for each operation under way, and for each that begins before the server is back | with the next call |
//! | the connection falls silent (a NAT forgot it, a cable was pulled, the server hangs) | acquire, extend and look-ups take 2.6 s longer; a release fails with [`NetworkTimeout`](ErrorCode::NetworkTimeout) after 5 s | after half of the command timeout, on a new connection |
//! | the same, with callers that give up after 1 s | their calls are not answered | after 3 s |
//! | the same, while a lease of 10 s is kept alive | nothing: the lease is kept | |
//! | the server is away or silent for long | `ServiceUnavailable` or `NetworkTimeout` | 3 s after it is back, at the latest (after 8 s of silence, with 32 callers that gave up) |
//! | Firestore moves or replaces a server | nothing, or one `ServiceUnavailable` | with the next call |
//! | a quota is used up | [`RateLimited`](ErrorCode::RateLimited); renewals and releases count as well | when the quota allows it |
//! | the credentials are revoked or changed | [`AuthFailed`](ErrorCode::AuthFailed) | file credentials are read again only by a new backend |
//! | the tokio runtime that made the backend ends | nothing: the backend connects again in the current runtime | with the next call |
//!
//! A request that has no answer within half of the command timeout condemns the connection. A read, an
//! acquire or an extend is sent once more, on a new connection: its preconditions make that safe. An
//! answer that is not on a short list (`INVALID_ARGUMENT`, `NOT_FOUND`, `PERMISSION_DENIED`, `ABORTED`,
//! and other answers about the request) condemns it as well. One task at a time connects for all callers,
//! so callers that give up leave no work behind. While it connects, nothing is sent, and an acquire whose
//! caller leaves has nothing to undo. An idle connection is tested every 30 seconds.
//!
//! There is no failover that loses commits: Firestore replicates each commit before it answers.
//!
//! # Clocks
//!
//! A condition of Firestore cannot ask for its time, so **the clock of each client decides** whether a
//! lease is live ([`Clock::Client`]). A lease counts as live until 1 second (the tolerance) after its
//! expiry. Only that second covers a difference between clocks:
//!
//! - *Within 1 second*, locks are exclusive: a client takes a key over only after the holder's time has
//!   ended.
//! - *A clock that is further ahead* takes a key over while its holder still relies on it. Then only
//!   the [fence](Fence) protects: a resource that refuses lower fences than it has seen is safe with any
//!   clocks.
//! - *A clock that is further behind* leaves dead leases alone for longer, and other clients take its own
//!   leases over early.
//!
//! So run a time service (the default on Google Cloud) and watch it. Every reply of Firestore carries its
//! time, and the backend compares it with the clock. If this machine is certainly off by more than half
//! the tolerance (500 ms), one warning goes to `tracing`. [`FirestoreBackend::clock_offset`] returns the
//! offset. Alert on it at 500 ms: two machines that are each closer than that to Firestore agree within
//! the tolerance.
//!
//! The backend decides whether a lease is live just before it sends the commit. So an extend that is slow
//! on its way can be applied to a lease that has ended meanwhile, if nobody else took the key. It never
//! harms a successor, whose document has another update time.
//!
//! # Setting up
//!
//! [`Backend::preflight`] checks the clock, the permissions and the index.
//!
//! - **Database**: Firestore in Native mode. Collections need no setup.
//! - **IAM**: the service account needs `roles/datastore.user`.
//! - **Security rules** do not apply to service accounts. Keep web and mobile clients out:
//!   ```text
//!   match /locks/{lock}            { allow read, write: if false; }
//!   match /fence_counters/{fence}  { allow read, write: if false; }
//!   match /leaders/{leader}        { allow read, write: if false; }
//!   ```
//! - **Indexes**: operations by id query `lockId`. In the Standard edition, Firestore makes the ascending
//!   single-field index for it. If automatic indexes are off, add it. The other fields are never
//!   queried. Exempt `expiresAtMs`, `acquiredAtMs`, `key` and `fence` in `locks`, `fence` and
//!   `keyDebug` in `fence_counters`, and all fields in `leaders`: this saves storage and latency, though not billed writes, and an
//!   index of rising times limits a collection to about 500 writes per second. The Enterprise edition
//!   makes no index, and scans the collection without one: create the one on `lockId`, and no other.
//! - **Dead locks**: a release deletes the document. The document of a holder that crashed stays until
//!   its key is locked again. TTL policies of Firestore cannot remove it, because they need a timestamp,
//!   and `expiresAtMs` is a number. If many keys are never locked again, let a scheduled job query for an
//!   `expiresAtMs` of a day ago (then keep its index), and delete each document with its update time as
//!   the precondition, so that a lock that was just taken stays.
//! - **Leaders**: what a leader [publishes](Backend::publish) is one document per key, with `fence`,
//!   `candidate`, `value`, `expiresAtMs` and `key`. A withdrawal deletes it. That of a leader that
//!   crashed stays until a next leader publishes. Nothing depends on it, so you may delete it at any
//!   time. SyncGuard for TypeScript does not know this collection.
//! - **Fence counters**: never delete one, by a TTL policy, a job or by hand. Fences that begin again below
//!   those already seen protect nothing. All services that share locks must name the same fence
//!   collection. Otherwise each counts for itself. Restoring a backup, importing, and going back to a
//!   point in time set the counters back: before locks are taken again, raise them above every fence that
//!   a resource may have seen. (An acquire also stays above the fence in a dead lock document. Do not
//!   rely on that.)
//!
//! # SyncGuard for TypeScript
//!
//! Both clients contend for the same locks if they name the same collections. Documents are equal byte
//! for byte, with these limits:
//!
//! - **Keys with `/`**: do not share them. That client takes a key as a path: `a/b/c` is a document in a
//!   subcollection there, `trail/` is the same document as `trail`, and it fails on `a/b`. This one
//!   stores each under the hash of the key. So **both can be granted such a key at once**. The same goes
//!   for the keys `.` and `..`, and for keys like `__x__`, which that client cannot lock.
//! - **Unicode**: share only keys of characters that are assigned in the Unicode versions of both sides.
//!   Keys are normalized to NFC, and a new version of Unicode can normalize a character that was
//!   unassigned before.
//! - **Documents that cannot be read**: a dead one is overwritten, as that client does, even if fields are
//!   missing. A live one blocks its key with [`Internal`](ErrorCode::Internal) until it is dead.
//!
//! # Errors
//!
//! By gRPC status, never by its text. The text is not part of the error, because it may quote document
//! names, which are keys. The [`source`](std::error::Error::source) names the status.
//!
//! | status | [`ErrorCode`] | would a retry help? |
//! |---|---|---|
//! | `UNAUTHENTICATED`, `PERMISSION_DENIED` | [`AuthFailed`](ErrorCode::AuthFailed) | no: credentials or roles are wrong, or the API is not enabled |
//! | `DEADLINE_EXCEEDED` | [`NetworkTimeout`](ErrorCode::NetworkTimeout) | yes |
//! | `RESOURCE_EXHAUSTED` | [`RateLimited`](ErrorCode::RateLimited) | later: a quota is used up |
//! | `INVALID_ARGUMENT` | [`InvalidArgument`](ErrorCode::InvalidArgument) | no |
//! | `FAILED_PRECONDITION` | [`InvalidArgument`](ErrorCode::InvalidArgument) | no: an index is missing, or the database is in Datastore mode |
//! | `NOT_FOUND` | [`InvalidArgument`](ErrorCode::InvalidArgument) | no: the database does not exist |
//! | `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `CANCELLED`, `ABORTED` | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) | yes |
//! | `ALREADY_EXISTS`, `OUT_OF_RANGE`, `UNIMPLEMENTED`, `DATA_LOSS`, `OK` | [`Internal`](ErrorCode::Internal) | no |
//!
//! For a commit, `FAILED_PRECONDITION`, `ALREADY_EXISTS`, `NOT_FOUND` and `ABORTED` are no errors. They
//! mean that a document has changed, and the backend reads it again. An extend or release that loses that
//! race ten times is [`ServiceUnavailable`](ErrorCode::ServiceUnavailable).
//!
//! Failures on this side:
//!
//! | failure | [`ErrorCode`] |
//! |---|---|
//! | no credentials, or credentials that give no token | [`AuthFailed`](ErrorCode::AuthFailed) |
//! | the server that issues tokens cannot be reached | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) |
//! | a connection that is refused, lost or closed, also with the HTTP/2 code `ENHANCE_YOUR_CALM` | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) |
//! | the certificate of the server cannot be verified | [`InvalidArgument`](ErrorCode::InvalidArgument) |
//! | an operation takes longer than the [command timeout](FirestoreBackendBuilder::command_timeout) | [`NetworkTimeout`](ErrorCode::NetworkTimeout) |
//! | the runtime of a client of yours has ended | [`InvalidArgument`](ErrorCode::InvalidArgument) |
//! | stored data cannot be read | [`Internal`](ErrorCode::Internal) |
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tls-webpki-roots` | yes | TLS with Mozilla's root certificates |
//! | `auth-default-crypto` | yes | signs with service account keys; without it, install a rustls `CryptoProvider` |
//! | `blocking` | no | the module `blocking`, for programs without async |
//!
//! TLS uses the rustls `CryptoProvider` that the program has installed, or else aws-lc-rs. So several
//! providers in one program do no harm. The SDK needs TLS: for the root certificates of the system, turn
//! `tls-webpki-roots` off and `gcloud-sdk/tls-roots` on, which needs the headers of OpenSSL.

mod backend;
mod builder;
mod clock;
mod connect;
mod connection;
mod error;
mod names;
mod notifications;
mod operations;
mod preflight;
mod record;

pub use gcloud_sdk;

pub use backend::FirestoreBackend;
pub use builder::FirestoreBackendBuilder;
pub use clock::ClockOffset;
#[doc(inline)]
pub use syncguard::*;

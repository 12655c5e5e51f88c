//! SyncGuard distributed locks on PostgreSQL, beside the data that they protect.
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_postgres::{LockManager, PostgresBackend};
//!
//! # async fn charge(_fence: syncguard_postgres::Fence) {}
//! # async fn example() -> Result<(), syncguard_postgres::Error> {
//! let backend = PostgresBackend::connect("postgres://app@localhost/app").await?;
//! backend.setup_schema().await?;
//! let locks = LockManager::new(backend);
//!
//! locks
//!     .lock("payment:42")
//!     .ttl(Duration::from_secs(60))
//!     .run(async |lock| -> syncguard_postgres::Result<_> { Ok(charge(lock.fence()).await) })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! Or on a pool that you have, [`PostgresBackend::new`]; with names of your own for the tables,
//! [`PostgresBackend::builder`]. To take or end a lock in one transaction with your own work, see
//! [`acquire_in`](PostgresBackend::acquire_in) and [`release_in`](PostgresBackend::release_in); to
//! refuse the writes of a holder that is too late, see [`fencing`].
//!
//! It is for PostgreSQL 14 and later, and is tested on 15.
//!
//! # What an operation costs
//!
//! Each is one statement, one transaction and one round trip, and none holds a connection while a
//! lock is held. The first use of a statement on a connection prepares it, with a trip of its own.
//! A pool with sqlx's default settings adds a trip to test each connection that it lends;
//! [`PostgresBackend::pool_options`] has better ones. While the pool has more to lend, a connection
//! stays at hand for some milliseconds between two operations, so a busy service does best with a
//! pool somewhat larger than the number of operations it has under way at a time.
//!
//! An operation may be dropped at any point: its statement is carried out in full or not at all. One
//! that reached its time limit, or was dropped, may still be carried out by the server a moment
//! later. A statement waits for the key and for its row, together no longer than what is left of the
//! command timeout, on the server too; a change of the tables themselves, such as `ALTER TABLE`, may
//! hold it up for longer there.
//!
//! The wait for a key is an advisory lock, `pg_advisory_xact_lock(hashtext(key))`, as the TypeScript
//! client takes it: 32 bits of the database's one space of such numbers. Two keys of one number take
//! turns, for a statement at a time. If your application holds an advisory lock of its own on that
//! number, operations on the key wait for that until they time out; use numbers beyond 32 bits, or
//! pairs.
//!
//! # Waiting
//!
//! A release wakes waiters in all processes with NOTIFY, and they try again at once. For this a
//! backend and its clones share one connection beside the pool, for all keys. It opens with the
//! first wait and closes after a minute without waiters. It connects as the pool does. If it is
//! lost, the backend reconnects, with growing pauses of up to 30 seconds. Meanwhile waiters try by
//! timer. If there is no connection, or none that lasts, one `tracing` warning says so. There is no
//! notification when a lease expires, because waiters know the time that it has left.
//!
//! A release notifies in its own statement, and only where somebody may be waiting, since NOTIFY
//! takes a lock across the whole cluster when it commits. It knows by shared advisory locks, at
//! most 256, that the listening session holds meanwhile: pairs of numbers, of which the first is
//! `hashtext('syncguard_locks_freed')`, or of the lock table's other name and `_freed`, which is
//! also the name of the channel. The payload is a hash: no key is sent. Where nobody waits, this
//! costs a release some microseconds. While the server's notification queue is nearly full, for
//! example because a session that listens sits idle in a transaction, releases send nothing, and
//! waiters try by timer.
//!
//! - *Behind a pooler in transaction mode* nothing can be heard. The connection is tested before
//!   anything is left on it, a warning says once that waiting goes on by timer, and the next test
//!   is ten minutes later. Give [`listen_on`](PostgresBackendBuilder::listen_on) a direct way to
//!   the server, for that one connection. With a statement cache of size zero (see
//!   [Poolers](crate#poolers)) nothing is tried without it.
//! - *Other clients.* The releases of SyncGuard for TypeScript notify no waiter. A
//!   [trigger](PostgresBackendBuilder::delete_trigger) on the lock table, if you ask for it,
//!   notifies them.
//! - *Turned off* by [`notifications(false)`](PostgresBackendBuilder::notifications). This process
//!   then waits by timer, and its releases still notify others.
//!
//! [`Capabilities::receives_notifications`] tells which case applies. A holder can also hand its
//! lease off to a waiter of its own process, in one statement. That needs no notification.
//!
//! # What is stored
//!
//! One row per held key in `syncguard_locks`, which stays when the lease dies, until the key is
//! taken again or [`purge_expired`](PostgresBackend::purge_expired) removes it, and one row per key
//! ever locked in `syncguard_fence_counters`, for good: never delete those, and keep them in the same
//! backups as what they guard. Both are shared with SyncGuard for TypeScript, which may contend for
//! the same locks.
//!
//! # What survives
//!
//! A grant and a renewal are on disk before they are answered, as `synchronous_commit` is set for
//! the session, on standbys too where it says so. A release is not (`synchronous_commit` is off for
//! that one statement): a crash of the server may undo one, and then the key is free at the end of
//! its TTL, or by a second release, which is true as well. Where a failover can lose commits, it
//! can lose a grant and its fence too: use synchronous replication if that may not happen. Time is
//! the server's clock; setting it back or forward by hand stretches or cuts leases.
//!
//! # Poolers
//!
//! All works through PgBouncer in transaction mode and its like, with one condition: the pooler must
//! keep track of prepared statements (PgBouncer 1.21 or later, `max_prepared_statements` over 0), or
//! they must not be used. Say so the way sqlx does, with a statement cache of size zero:
//! `postgres://..?statement-cache-capacity=0`, or
//! [`statement_cache_capacity(0)`](sqlx::postgres::PgConnectOptions::statement_cache_capacity). This
//! backend then sends each statement as one text, which the server parses anew: still one round trip.
//! Without that, a pooler may run a statement that somebody else prepared under the same name. It
//! usually shows at once, as [`ErrorCode::InvalidArgument`] that says what to set.
//!
//! # Isolation levels
//!
//! Made for READ COMMITTED, Postgres's default, where no operation can conflict. Where the session's
//! default is stricter, a statement that the server undoes because of a conflict is sent once more at
//! READ COMMITTED.
//!
//! # Errors
//!
//! The driver's error is the [`source`](std::error::Error::source).
//!
//! | code | SQLSTATE | error of sqlx |
//! |---|---|---|
//! | [`AuthFailed`](ErrorCode::AuthFailed) | 28xxx credentials, 42501 permission | |
//! | [`InvalidArgument`](ErrorCode::InvalidArgument) | 42P01 missing tables: call [`setup_schema`](PostgresBackend::setup_schema); 23502, 23514, 42703, 42804, 42P10 tables of another shape; 3D000, 3F000, 57P04 no such database or schema; 22021, 22P05 a key that the database's encoding cannot write; 23505 a lock id used twice; 26000, 42P05 a pooler without prepared statements; 25P02 a transaction that had failed | `Configuration`, `InvalidArgument`, `Tls`, `Encode` |
//! | [`NetworkTimeout`](ErrorCode::NetworkTimeout) | 55P03 lock, 57014 statement, 25P04 transaction time-out | `Io` of kind `TimedOut`; the command timeout |
//! | [`RateLimited`](ErrorCode::RateLimited) | 53xxx connections, memory, disk | |
//! | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) | 08xxx connection, 25006 read-only, 25P03 idle transaction, 40xxx conflict, 57Pxx shutdown and start-up, 58xxx system | other `Io`, `Protocol`, `PoolTimedOut`, `PoolClosed`, `WorkerCrashed` |
//! | [`Internal`](ErrorCode::Internal) | all others | all others |
//!
//! sqlx's pool repeats a connection that is refused, or turned away because there are too many, until
//! its time is up, and then says `PoolTimedOut`. That is `ServiceUnavailable`, and says nothing about
//! a lease, which stands until it expires. [`PostgresBackend::connect`] tries the first connection
//! without the pool, and so tells these apart.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tls-rustls` | no | TLS with rustls on ring; any other of sqlx's TLS features can be turned on there |

mod backend;
mod config;
mod connections;
mod error;
pub mod fencing;
mod notifications;
mod row;
mod schema;
mod statement;
mod tables;
mod transaction;

pub use backend::PostgresBackend;
pub use config::PostgresBackendBuilder;
pub use sqlx;
#[doc(inline)]
pub use syncguard::*;

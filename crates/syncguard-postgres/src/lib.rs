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
//! For other settings see [`PostgresBackend::builder`]. To take or end a lock in one transaction with
//! your own work, see [`acquire_in`](PostgresBackend::acquire_in) and
//! [`release_in`](PostgresBackend::release_in). To refuse the writes of a holder that is too late, see
//! [`fencing`].
//!
//! It works with PostgreSQL 12 and later.
//!
//! # Which pool to give it
//!
//! None, or the one that you have. The backend takes no connection from a pool. It opens its own, with
//! the [connect options](sqlx::Pool::connect_options) of the pool, or of the URL. So work that holds
//! all connections of your pool cannot keep a lease from being renewed, and needs no spare one for it.
//!
//! Attempts use at most as many connections as the pool may have, 10 by default, at a time. Renewals
//! and releases may use 2 more, and waiters share one. They are opened when needed, and closed after a
//! minute without use; a service that takes a lock now and then has one. Set
//! [`max_connections`](PostgresBackendBuilder::max_connections) if the server has few to give: each
//! attempt needs one for a round trip only, so a few serve hundreds of tasks.
//!
//! Hooks of a pool, such as `after_connect`, do not run on these connections. Put session settings into
//! the connect options, for example `?options[role]=app` in the URL.
//!
//! # What an operation costs
//!
//! Each operation is one statement, one transaction and one round trip. Under load, attempts, renewals
//! and releases that arrive together share a statement, and so a commit to disk: see
//! [`group_commit`](PostgresBackendBuilder::group_commit). A held lock holds no connection. The first use of a statement on a connection prepares it, with a trip of its own. A
//! connection that was idle for over a second is tested first, with one more trip.
//!
//! An operation may be dropped at any point: its statement is carried out in full or not at all. One
//! that was sent and then timed out or was dropped may still be carried out a moment later. A statement
//! waits for the key and for its row, together no longer than what is left of the command timeout, on
//! the server too. A change of the tables themselves, such as `ALTER TABLE`, can hold it up for longer.
//!
//! The wait for a key is an advisory lock, `pg_advisory_xact_lock(hashtext(key))`, as the TypeScript
//! client takes it: 32 bits of the database's one space of such numbers. Two keys with the same number
//! wait for each other, for one statement at a time. If your application holds an advisory lock of its
//! own on that number, operations on the key wait for it until they time out. Use numbers beyond 32
//! bits, or pairs.
//!
//! # Recovery
//!
//! Measured with the default settings, a caller who tries every 50 ms, a lease of 30 s that is kept
//! alive, and a failover manager that needs 2 s, on a busy machine with 2 cores and a debug build. The
//! lease is kept in every row. The last column is the time from the end of the fault, or from the
//! moment when the address leads to the new primary, until locks are granted again.
//!
//! | fault | until its end | recovery |
//! |---|---|---|
//! | the server restarts | `ServiceUnavailable` at once, or within half a second | 0.2 to 0.9 s |
//! | failover, the primary was killed | the same | 0.5 to 1.1 s |
//! | failover, the primary hangs | `NetworkTimeout` after the command timeout | 0.6 s, at most one command timeout |
//! | switchover, connections lead to what is now a standby | `ServiceUnavailable` (read-only) at once | 0.8 to 1.7 s |
//! | the server hangs and goes on | `NetworkTimeout` after the command timeout | 0.2 to 0.8 s |
//! | the network drops packets in silence | the same | 0.9 to 1.2 s |
//! | a network forgot the idle connections | none: one test of at most 0.5 s, then new connections | |
//! | your pool is full | none: the backend has connections of its own | |
//! | more callers than the connections can serve | `ServiceUnavailable` for some, after half of the command timeout: those that are sent have the other half for their answer | at the next attempt |
//! | too many connections on the server | attempts wait for a connection that is open; without one, `RateLimited` | at the next attempt |
//! | the password was changed | `AuthFailed` when the next connection is opened | with [`set_connect_options`](sqlx::Pool::set_connect_options) on the pool |
//! | the tables were altered | `ServiceUnavailable` once | at the next attempt |
//!
//! A connection whose statement got no answer in time is closed, and so are those that are idle. An
//! error leaves a connection in use only if it is known to be about the request: a conflict, a wait
//! that took too long, a value that the tables do not take. After any other error of the server, all
//! connections are replaced. While connections are refused, one at a time is tried, at least every half
//! second. A connection that was idle for over a second is tested with a limit of half a second.
//!
//! The driver takes one host. For a failover, give it a name or address that follows the primary.
//!
//! A backend works in several runtimes, at the same time or one after another: each uses connections
//! that it has opened itself.
//!
//! # Waiting
//!
//! A release wakes waiters in all processes with NOTIFY, and they try again at once. For this a
//! backend and its clones share one connection for all keys. It opens with the first wait and closes
//! after a minute without waiters. If it is lost, the backend reconnects, with growing pauses of up to
//! 30 seconds. Meanwhile waiters try by timer. If there is no connection, or none that lasts, one
//! `tracing` warning says so. There is no notification when a lease expires, because waiters know the
//! time that it has left.
//!
//! A release notifies in its own statement, and only if there may be waiters, because NOTIFY takes a
//! lock across the whole cluster when it commits. It learns that from shared advisory locks, at most
//! 256, that the listening session holds meanwhile: pairs of numbers, of which the first is
//! `hashtext('syncguard_locks_freed')`, or of the lock table's other name and `_freed`, which is also
//! the name of the channel. The payload is a hash: no key is sent. Without waiters, this costs a release
//! some microseconds. While the server's notification queue is nearly full, for example because a
//! session that listens sits idle in a transaction, releases send nothing, and waiters try by timer.
//!
//! - *Behind a pooler in transaction mode* no notification arrives. The connection is tested before
//!   anything is left on it, a warning says once that waiters try by timer, and the next test is ten
//!   minutes later. Give [`listen_on`](PostgresBackendBuilder::listen_on) a direct way to the server,
//!   for that one connection. With a statement cache of size zero (see [Poolers](crate#poolers))
//!   nothing is tried without it.
//! - *Other clients.* The releases of SyncGuard for TypeScript notify no waiter. A
//!   [trigger](PostgresBackendBuilder::delete_trigger) on the lock table, if you ask for it, notifies
//!   them.
//! - *Turned off* by [`notifications(false)`](PostgresBackendBuilder::notifications). This process then
//!   waits by timer, and its releases still notify others.
//!
//! [`Capabilities::receives_notifications`] tells which case applies. A holder can also hand its lease
//! off to a waiter of its own process, in one statement. That needs no notification.
//!
//! # What is stored
//!
//! `syncguard_locks` has one row per held key. The row stays when the lease dies, until the key is taken
//! again or [`purge_expired`](PostgresBackend::purge_expired) removes it. `syncguard_fence_counters` has
//! one row per key that was ever locked, for good: never delete those, and keep them in the same backups
//! as the data that they guard. Both tables are shared with SyncGuard for TypeScript, which may contend
//! for the same locks.
//!
//! `syncguard_leaders` has one row per key whose leader [publishes](Backend::publish) a name and a value.
//! The row goes when the leader withdraws, or stays after its expiry until a next leader publishes. You
//! may delete rows of it at any time. SyncGuard for TypeScript does not create this table. Without it,
//! locks work, and publishing is [`ErrorCode::InvalidArgument`]:
//! [`setup_schema`](PostgresBackend::setup_schema) creates it.
//!
//! Name their [`schema`](PostgresBackendBuilder::schema). Otherwise the `search_path` of each session
//! decides which tables are meant, and a pooler can drop that setting.
//!
//! # What to watch
//!
//! Each cycle of a lock leaves dead rows, which Postgres removes on the way. It cannot remove them while
//! any transaction in the database is older than they are. So a long transaction elsewhere, or a
//! forgotten one, slows down a hot key until it ends: from 2 to 24 ms a cycle after 8,000 cycles,
//! measured on a busy machine. A lower `fillfactor` does not help (27 and 19 ms with 50 and 10), because
//! no dead row can be removed, and the updates of the fence counters are HOT already. Watch the age of
//! the oldest transaction in `pg_stat_activity`, and set `idle_in_transaction_session_timeout`.
//! [`preflight`](Backend::preflight) reports a transaction that is older than a minute.
//!
//! Autovacuum makes the space of these rows usable again, once a minute by default. After minutes with 20,000
//! cycles a second, the table and its indexes had grown to 250 MB, and a cycle took 1.7 times as long. If
//! you take thousands of locks a second, set `autovacuum_naptime` to some seconds, and
//! `autovacuum_vacuum_cost_delay` to 0 for the lock table.
//!
//! # What survives
//!
//! A grant and a renewal are on disk before they are answered, as `synchronous_commit` is set for the
//! session, and on standbys too if it says so. A release is not (`synchronous_commit` is off for that
//! one statement): a crash of the server may undo one, and then the key is free at the end of its TTL,
//! or by a second release, which is true as well. If a failover can lose commits, it can lose a grant
//! and its fence too: use synchronous replication if that may not happen. Time is the server's clock.
//! Setting it back or forward by hand stretches or cuts leases.
//!
//! # Poolers
//!
//! Everything works through PgBouncer in transaction mode and its like, with one condition: the pooler
//! must keep track of prepared statements (PgBouncer 1.21 or later, `max_prepared_statements` over 0),
//! or they must not be used. Turn them off with a statement cache of size zero:
//! `postgres://..?statement-cache-capacity=0`, or
//! [`statement_cache_capacity(0)`](sqlx::postgres::PgConnectOptions::statement_cache_capacity). This
//! backend then sends each statement as one text, which the server parses anew: still one round trip.
//! Without that, a pooler may run a statement that another client prepared under the same name. It
//! usually shows at once, as [`ErrorCode::InvalidArgument`] that says what to set.
//!
//! # Isolation levels
//!
//! The statements are made for READ COMMITTED, Postgres's default, at which no operation can conflict.
//! If the session's default is stricter, a statement that the server undoes because of a conflict is
//! sent once more at READ COMMITTED.
//!
//! # Errors
//!
//! The [`source`](std::error::Error::source) has the SQLSTATE and the message of the server, or the
//! error of the driver. It leaves out messages and details that quote values, because whoever knows a
//! lock id can end its lease. For the same reason the driver logs no statement of this backend. The
//! codes in the first three rows are permanent: a retry fails again.
//!
//! | code | SQLSTATE | error of sqlx |
//! |---|---|---|
//! | [`AuthFailed`](ErrorCode::AuthFailed) | 28xxx credentials, 42501 permission, with the name of the object | |
//! | [`InvalidArgument`](ErrorCode::InvalidArgument) | 42P01 missing tables: call [`setup_schema`](PostgresBackend::setup_schema); 23502, 23514, 42703, 42804, 42P10 tables of another shape; 3D000, 3F000, 57P04 no such database or schema; 22023, 42704, 42602 a bad setting of the connection; 22021, 22P05 a key that the database's encoding cannot write; 23505 a lock id used twice; 26000, 42P05 a pooler without prepared statements; 25P02 in a transaction of yours that had failed | `Configuration`, `InvalidArgument`, `Tls`, `Encode`; `Io` in a TLS handshake |
//! | [`Aborted`](ErrorCode::Aborted) | | `PoolClosed` |
//! | [`NetworkTimeout`](ErrorCode::NetworkTimeout) | 55P03 lock, 25P04 transaction, 57014 if it says `statement timeout` | `Io` of kind `TimedOut`; the command timeout |
//! | [`RateLimited`](ErrorCode::RateLimited) | 53xxx connections, memory, disk; 54000 notification queue | |
//! | [`ServiceUnavailable`](ErrorCode::ServiceUnavailable) | 08xxx connection, 0A000 of a stale plan, 25006 read-only, 25P02 and 25P03 a spoilt session, 40xxx conflict, 55xxx state, 57xxx shutdown, start-up and cancellation, 58xxx system, 72000 old snapshot | other `Io`, `Protocol`, `WorkerCrashed` |
//! | [`Internal`](ErrorCode::Internal) | all others | all others |
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tls-rustls` | no | TLS with rustls on ring, whichever other providers are compiled in |

mod backend;
mod builder;
mod connect;
mod connections;
mod database;
mod error;
pub mod fencing;
mod groups;
mod names;
mod notifications;
mod operations;
mod preflight;
mod record;
mod schema;
mod tls;
mod transaction;

pub use backend::PostgresBackend;
pub use builder::PostgresBackendBuilder;
pub use sqlx;
#[doc(inline)]
pub use syncguard::*;

//! SyncGuard locks on Redis: the server that a service already runs, and a fencing token on every
//! grant.
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_redis::{LockManager, RedisBackend};
//!
//! # async fn charge(fence: syncguard_redis::Fence) {}
//! # #[tokio::main] async fn main() -> syncguard_redis::Result<()> {
//! let locks = LockManager::new(RedisBackend::connect("redis://127.0.0.1:6379").await?);
//!
//! let guard = locks.lock("payment:42").ttl(Duration::from_secs(60)).acquire().await?;
//! charge(guard.fence()).await;
//! guard.release().await?;
//! # Ok(()) }
//! ```
//!
//! Your own client or pool of [`fred`] works as well, and so do other options:
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_redis::{LockManager, RedisBackend, fred::prelude::*};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Builder::from_config(Config::from_url("redis://127.0.0.1:6379")?).build_pool(4)?;
//!
//! let backend = RedisBackend::builder()
//!     .key_prefix("billing")
//!     .command_timeout(Duration::from_secs(1))
//!     .build(pool)?;
//! let locks = LockManager::new(backend);
//! # Ok(()) }
//! ```
//!
//! # Servers
//!
//! Redis from version 7, and what speaks and scripts like it, such as Valkey: a single server, one
//! behind sentinels, or a cluster. Each operation is one script and one round trip; a script that
//! the server does not know, as after its restart, is sent along at once. No command that a server
//! may have carried out is sent again, except on a [cluster](#clusters) that changes its shape, and
//! none waits longer than the [command timeout](RedisBackendBuilder::command_timeout), also on your
//! own client.
//!
//! A user of the server's ACL needs the names of the prefix (`~syncguard:*`) and the commands
//! `evalsha`, `eval`, `get`, `set`, `del`, `incr`, `decr`, `pexpire` and `time`. What fred sends
//! when it connects comes on top: `ping` without a password, `select` for another database than 0,
//! `cluster` in a cluster, and `role` behind sentinels. [Notifications](#waiting) need a little more.
//!
//! # Waiting
//!
//! A release tells those who wait: its script publishes an empty message on the channel that has the
//! name of the lock, in the same round trip, whether anybody listens or not. In a cluster that is
//! sharded pub/sub, so the channel has the slot of the lock.
//!
//! The first one who waits for a lock makes one connection more, with the configuration of the
//! backend's client, for all locks of this backend and its clones. It is subscribed to what is
//! waited for and to nothing else, which takes a `SUBSCRIBE` and a `PING` when somebody begins to
//! wait for a key that nobody waited for (in a cluster, an `SSUBSCRIBE`); an `UNSUBSCRIBE` or
//! `SUNSUBSCRIBE` follows up to two seconds after the last one has stopped, so a busy key keeps its
//! subscription. While somebody waits, one of the subscriptions is made again every two seconds in
//! the same way, which proves the connection. A connection that is lost or silent is made again,
//! and then everybody who waits tries again; where that fails, it is tried with growing pauses of
//! up to 30 seconds. It ends with the last clone of the backend.
//!
//! A notification is never needed: without it, waiting goes by the time that the lease still has,
//! and by the back-off. That is how a lease is waited for that expires, or that another library
//! releases. It is also what remains, with one warning in the log, where there is no connection,
//! none that lasts, or none that may subscribe; and a release succeeds where the server refuses to
//! publish. An ACL that lets both through:
//!
//! | | commands | channels |
//! |---|---|---|
//! | to tell | `publish`, in a cluster `spublish` | `&syncguard:*` |
//! | to be told | `subscribe`, `unsubscribe`, `ping`, in a cluster `ssubscribe` and `sunsubscribe` | `&syncguard:*` |
//!
//! [`notifications(false)`](RedisBackendBuilder::notifications) turns both off. Channels belong to
//! no database: the waiters of one are woken by the releases of another with the same prefix, for
//! nothing. And with an empty prefix, channels of your own may have the name of a lock.
//!
//! A [`handoff`](Backend::handoff) is one script as well. It publishes nothing, since nothing
//! becomes free.
//!
//! # What is stored
//!
//! The same as SyncGuard for TypeScript stores, so that both can contend for one lock. With the
//! default prefix, for the key `payment:42`:
//!
//! | name | value | expires |
//! |---|---|---|
//! | `syncguard:payment:42` | the record: `key`, `lockId`, `fence`, `acquiredAtMs`, `expiresAtMs`, as JSON | at the TTL |
//! | `syncguard:id:<lock id>` | the name above | at the TTL |
//! | `syncguard:fence:syncguard:payment:42` | the fence counter, an integer | never |
//!
//! Time is the server's. Since the server removes a record at its TTL, a lease ends there, without
//! the tolerance of a second that other stores give. An extension by id, or of a record in another
//! writing than ours, rounds an expiry of 10^14 ms and above to 14 digits; no TTL below 3,100 years
//! comes there. Whatever else is found under these names is left as it is, and reported as
//! [`Internal`](ErrorCode::Internal).
//!
//! # How durable a lock is
//!
//! As durable as the data of your server, and the fence counter no more than the lock:
//!
//! - `maxmemory-policy` must be `noeviction`: other policies may delete a lock that is held, or a
//!   fence counter.
//! - Without persistence a restart forgets locks and counters. With `appendfsync everysec` a crash
//!   may lose the last second of both: then a key is free too early, and fences repeat.
//! - Replication is asynchronous. A failover, by sentinels or in a cluster, may lose the last
//!   writes in the same way. A master that was demoted and keeps its connections answers `READONLY`
//!   until the client connects anew.
//! - Fence counters stay for ever, about 100 bytes for each key that was ever locked.
//!
//! Where that is not enough, keep the locks in a database that does not lose what it confirmed.
//!
//! # Clusters
//!
//! All names of a lock must share a slot of the cluster, so the prefix needs a hash tag; a cluster
//! client with a prefix without one is refused when the backend is built.
//!
//! ```no_run
//! # use syncguard_redis::RedisBackend;
//! # #[tokio::main] async fn main() -> syncguard_redis::Result<()> {
//! let backend = RedisBackend::builder()
//!     .key_prefix("{syncguard}")
//!     .connect("redis-cluster://10.0.0.1:6379?node=10.0.0.2:6379")
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! So all locks of a prefix live in one slot, on one node. To spread them, use several prefixes,
//! such as `{billing}` and `{reports}`, with a backend for each. While a slot is on the move, and
//! while there is no connection to its node, operations fail at once with
//! [`ServiceUnavailable`](ErrorCode::ServiceUnavailable), having changed nothing: waiting for a lock
//! tries again.
//!
//! When nodes come, go or change their roles, fred may send a command that was in flight a second
//! time. To acquire and to extend answers the same again. A release may answer `false`, although it
//! was this one that released: its first sending did.
//!
//! # Errors
//!
//! | code | fred's kind of error | the server's error |
//! |---|---|---|
//! | `AuthFailed` | `Auth` | `NOAUTH`, `WRONGPASS`, `NOPERM`, `DENIED`; a script that the user may not run to its end; a password where the server has none |
//! | `ServiceUnavailable` | `IO`, `Canceled`, `Routing`, `Cluster`, `Sentinel`; `Timeout` while there is no connection; `Unknown` from the client itself | `LOADING`, `READONLY`, `MASTERDOWN`, `NOREPLICAS`, `MISCONF`, `BUSY`, `UNBLOCKED`, `CLUSTERDOWN`, `TRYAGAIN`, `MOVED`, `ASK`; a script whose keys the cluster does not reach |
//! | `NetworkTimeout` | `Timeout` | |
//! | `RateLimited` | `Backpressure` | `OOM`, `ERR max number of clients` |
//! | `InvalidArgument` | `Config`, `Url`, `Tls`, `InvalidCommand`, `InvalidArgument` | `CROSSSLOT` |
//! | `Internal` | `Parse`, `Protocol`, `NotFound`, all others | `WRONGTYPE`, all others |
//!
//! fred's error is the [source](std::error::Error::source) of ours.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `tls-rustls` | `rediss://` through rustls with aws-lc |
//! | `tls-rustls-ring` | `rediss://` through rustls with ring |
//!
//! None is on by default. Where the process has installed a rustls `CryptoProvider`, that is used;
//! else the feature's is installed, and aws-lc where both are on. Certificates are checked against
//! the roots of the system.

mod backend;
mod builder;
mod connect;
mod connection;
mod error;
mod names;
mod notifications;
mod operations;
mod record;
mod tls;
mod url;

pub use backend::RedisBackend;
pub use builder::RedisBackendBuilder;
pub use connect::Connection;
pub use fred;
#[doc(inline)]
pub use syncguard::*;

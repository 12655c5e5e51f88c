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
//! A client or pool of [`fred`] works as well, and so do other options:
//!
//! ```no_run
//! use std::time::Duration;
//! use syncguard_redis::{LockManager, RedisBackend, fred::prelude::*};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Builder::from_config(Config::from_url("redis://127.0.0.1:6379")?).build()?;
//!
//! let backend = RedisBackend::builder()
//!     .key_prefix("billing")
//!     .command_timeout(Duration::from_secs(1))
//!     .build(client)?;
//! let locks = LockManager::new(backend);
//! # Ok(()) }
//! ```
//!
//! # Servers
//!
//! Redis from version 6.2, and servers that speak and script like it, such as Valkey: a single
//! server, one behind Sentinel, or a cluster. The tests run on Redis 6.2, 7.0 and 8.2 and on Valkey
//! 9.1. Each operation is one script and one round trip. If the server does not know the script, as
//! after its restart, the script is sent along at once. No command that a server may have carried
//! out is sent again, except on a [cluster](#clusters) that changes its shape.
//!
//! [`preflight`](Backend::preflight) asks the server whether it is fit for locks: its version, role,
//! `maxmemory-policy`, persistence and `min-replicas-to-write`, whether it is a cluster, and which
//! permissions are missing.
//!
//! A user of the server's ACL needs the keys of the prefix (`~syncguard:*`) and the commands
//! `evalsha`, `eval`, `get`, `set`, `del`, `incr`, `decr`, `pexpire` and `time`. Leaders that
//! [publish](Backend::publish) need `hset`, and those who read it `hmget`, which a leader needs as
//! well. fred adds some commands when it connects: `ping` without a password, `select` for another
//! database than 0, `cluster` in a cluster, and `role` behind Sentinel. [Notifications](#waiting)
//! need a few more.
//!
//! Operations by lock id read the name of the lock from an index. That name is therefore not among
//! the declared `KEYS` of their scripts. Redis and Valkey allow this: the hash tag of the prefix
//! keeps the key in the declared slot. A server that insists on declared keys refuses them.
//! Dragonfly needs `--default_lua_flags=allow-undeclared-keys`.
//!
//! # Connections
//!
//! The backend makes a connection of its own, with the configuration of the URL or of your client,
//! and all locks share it. A second one receives [notifications](#waiting). Give the backend a
//! `Client` rather than a `Pool`: one connection carries tens of thousands of operations per second,
//! and it keeps the commands of a lock in order. Operations that arrive together share a call under
//! load: see [`group_commit`](RedisBackendBuilder::group_commit). Your own client is only a template. You need not connect
//! it, its reconnect policy does not matter, and its blocking commands delay no renewal.
//!
//! A connection is made when an operation needs it, and an operation is sent only over a connection
//! that is up. While the server is away, requests wait for at most the
//! [command timeout](RedisBackendBuilder::command_timeout), have sent nothing, and are dropped with
//! their callers. If a command has no answer within the timeout, or an error that does not say that
//! only this request is at fault, the connection is closed before it is used again. The next one
//! asks Sentinel or the cluster for the master anew. Attempts to connect are 20 ms apart at first
//! and 1 s later.
//!
//! # What happens when
//!
//! The same backend with default settings (3 s command timeout), called every 50 ms, with a lease of
//! 30 s that is kept alive. Times are from the fault to the first success, measured on one machine.
//!
//! | event | locks work again | the lease |
//! |---|---|---|
//! | the server restarts | 4 ms to 7 ms after it accepts connections, at most 1 s | is kept if the server [persists](#how-durable-a-lock-is) it |
//! | Sentinel or Cluster, master killed (`down-after-milliseconds` or `cluster-node-timeout` 2000) | after 3.4 s to 4.7 s | is kept |
//! | Sentinel or Cluster, master hung | after 6.1 s to 6.4 s | is kept |
//! | the network swallows one connection | after 4.0 s if called every second: the command timeout and that second | is kept, from a TTL of 10 s |
//! | the server hangs | when it goes on, or within 1 s of that | is kept if it goes on in time |
//! | a master is demoted and keeps its connections | at the second attempt | is kept |
//! | the server is full (`maxmemory`) | new grants are `RateLimited` until it has memory | is kept and can be released |
//! | the password changes and the server closes its connections | operations are `AuthFailed` until it is changed back, then within 1 s | is kept if that is in time |
//!
//! A backend outlives the tokio runtime it was made in: the next runtime makes a new connection.
//! Outside a runtime, every operation is `InvalidArgument`.
//!
//! # Waiting
//!
//! A release wakes waiters: its script publishes an empty message on the channel that has the name
//! of the lock, in the same round trip. In a cluster it uses sharded pub/sub, so the channel has the
//! slot of the lock. A cluster before Redis 7 has none, so waiters there go by timer.
//!
//! The first waiter makes one more connection, for all locks of this backend and its clones. It is
//! subscribed only to the locks that have waiters. That takes a `SUBSCRIBE` and a `PING` when a key
//! gets its first waiter (in a cluster, an `SSUBSCRIBE`), and an `UNSUBSCRIBE` or `SUNSUBSCRIBE` up
//! to two seconds after the last one has stopped, so a busy key keeps its subscription. While there
//! are waiters, one of the subscriptions is made again every two seconds in the same way, which
//! proves the connection. A connection that is lost or silent is made again, and then all waiters
//! try again. If it cannot be made, the pauses between attempts grow up to 30 seconds. It ends with
//! the last clone of the backend.
//!
//! A notification is never needed. Without it, a waiter goes by the time that the lease still has,
//! and by the backoff. In this way it waits for a lease that expires, or that another library
//! releases. This is also what remains, with one warning in the log, if the connection cannot be
//! made, does not last, or may not subscribe. A release succeeds if the server refuses to publish.
//! An ACL that lets both through:
//!
//! | | commands | channels |
//! |---|---|---|
//! | to notify | `publish`, in a cluster `spublish` | `&syncguard:*` |
//! | to be notified | `subscribe`, `unsubscribe`, `ping`, in a cluster `ssubscribe` and `sunsubscribe` | `&syncguard:*` |
//!
//! [`notifications(false)`](RedisBackendBuilder::notifications) turns both off. Channels belong to
//! no database: a release in one wakes waiters in another one with the same prefix, for nothing. And
//! with an empty prefix, channels of your own may have the name of a lock.
//!
//! A [`handoff`](Backend::handoff) is one script as well. It publishes nothing, because no key
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
//! | `syncguard:leader\0syncguard:payment:42` | what a leader [publishes](Backend::publish), if it does: a hash of `fence`, `candidate` and `value` | at the TTL it was given |
//!
//! The last one is not known to SyncGuard for TypeScript, and changes nothing about the lock. `\0`
//! is a NUL character, which no key contains, so no lock has this name.
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
//! - Replication is asynchronous. A failover, by Sentinel or in a cluster, may lose the last writes
//!   in the same way. Set `min-replicas-to-write` to 1 and `min-replicas-max-lag` to a few seconds.
//!   Otherwise a master that is cut off, or was stopped and goes on, grants locks beside the new one
//!   until it is demoted. A lock manager refuses a fence that is lower than one it has seen.
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
//! such as `{billing}` and `{reports}`, with a backend for each. While a slot moves, operations may
//! fail with [`ServiceUnavailable`](ErrorCode::ServiceUnavailable), having changed nothing: a waiter
//! tries again. A connection to a cluster needs all its masters. While one of them is away and no
//! replica has taken over, a connection that is lost cannot be made again.
//!
//! When nodes come, go or change their roles, fred may send a command that was in flight a second
//! time. Acquire and extend answer the same again. A release may answer `false`, although it was
//! this one that released: its first sending did.
//!
//! # Errors
//!
//! | code | fred's kind of error | the server's error |
//! |---|---|---|
//! | `AuthFailed` | `Auth` | `NOAUTH`, `WRONGPASS`, `NOPERM`, `DENIED`, a script that the user may not run to its end, a password if the server has none |
//! | `ServiceUnavailable` | `IO`, `Canceled`, `Routing`, `Cluster`, `Sentinel`, `Unknown` from the client itself | `LOADING`, `READONLY`, `MASTERDOWN`, `NOREPLICAS`, `MISCONF`, `BUSY`, `UNBLOCKED`, `CLUSTERDOWN`, `TRYAGAIN`, `MOVED`, `ASK`, a script whose keys the cluster does not reach |
//! | `NetworkTimeout` | `Timeout` | |
//! | `RateLimited` | `Backpressure` | `OOM`, `ERR max number of clients` |
//! | `InvalidArgument` | `Config`, `Url`, `Tls`, `InvalidCommand`, `InvalidArgument`, a certificate that cannot be verified, a TLS handshake that the server refuses | `CROSSSLOT`, `NOPROTO`, a command that the server or a proxy does not allow, a database that it does not have, a name that Sentinel does not know |
//! | `Internal` | `Parse`, `Protocol`, `NotFound`, all others | `WRONGTYPE`, all others |
//!
//! fred's error is the [source](std::error::Error::source) of ours, without what a server quotes of
//! a command: no error and no log shows a key, a lock id or a password. `ServiceUnavailable`,
//! `NetworkTimeout` and `RateLimited` are worth a retry, which the lock manager makes. The other
//! codes need a change.
//!
//! These errors leave the connection in use: `NOPERM`, `OOM`, `BUSY`, `TRYAGAIN`, `CROSSSLOT`,
//! `WRONGTYPE`, a command that is not allowed, and those that our scripts return for stored data.
//! All others close it.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `blocking` | the module `blocking`, for programs without async |
//! | `sentinel-auth` | `sentinelUsername` and `sentinelPassword` in a URL: without the feature, sentinels get the credentials of the server |
//! | `tls-rustls` | `rediss://` through rustls with aws-lc |
//! | `tls-rustls-ring` | `rediss://` through rustls with ring |
//! | `unix-sockets` | `unix:///run/redis.sock`, also written `redis+unix://` |
//!
//! None is on by default. TLS uses the provider of the feature, and aws-lc if both are on, whatever
//! the process has installed. Certificates are checked against the roots of the system.

mod backend;
mod builder;
mod connect;
mod connection;
mod error;
mod groups;
mod names;
mod notifications;
mod operations;
mod preflight;
mod publication;
mod record;
mod tls;
mod url;

pub use backend::RedisBackend;
pub use builder::RedisBackendBuilder;
pub use connect::Connection;
pub use fred;
#[doc(inline)]
pub use syncguard::*;

//! How to refuse the writes of a holder that does not know yet that its lease has ended.
//!
//! A process can be paused, or cut off, for longer than its TTL, and then go on writing while
//! somebody else holds the key. Each grant has a [`Fence`](crate::Fence), higher than all earlier ones
//! of its key, and the database can compare it in the same statement that writes. A fence fits a
//! `BIGINT`: `i64::try_from(guard.fence().get())` never fails.
//!
//! # One row
//!
//! Give the row a column `fence BIGINT NOT NULL DEFAULT 0`, and let each write carry its own:
//!
//! ```sql
//! UPDATE accounts SET balance = $2, fence = $3
//! WHERE id = $1 AND fence <= $3
//! ```
//!
//! No row updated: a later holder has been here. Stop, and write nothing more.
//!
//! # Many rows
//!
//! Keep one row per lock in a table of yours, and begin each transaction by presenting the fence:
//!
//! ```sql
//! CREATE TABLE fences_seen (resource TEXT PRIMARY KEY, fence BIGINT NOT NULL);
//!
//! INSERT INTO fences_seen AS seen (resource, fence) VALUES ($1, $2)
//! ON CONFLICT (resource) DO UPDATE SET fence = EXCLUDED.fence
//! WHERE seen.fence <= EXCLUDED.fence
//! RETURNING fence;
//! ```
//!
//! No row returned: roll back. A row: nobody else can present a fence for this resource until the
//! transaction ends, so all it writes is written by the latest holder. Present it at once after
//! taking the lock, too, and an earlier holder is shut out from then on.
//!
//! # In the database of the locks
//!
//! Where locks and data share a database, there is a check that needs no column:
//! [`release_in`](crate::PostgresBackend::release_in) inside the transaction that writes. If it is
//! *true*, the lease is live, and nobody takes the key over before the transaction has ended. Take the
//! lease from its guard before, with [`detach`](crate::LockGuard::detach), so that no renewal meets
//! the open transaction and calls the lease lost when the work is done; never call it inside
//! [`run`](crate::LockRequest::run).

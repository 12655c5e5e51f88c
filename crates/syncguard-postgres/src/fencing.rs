//! How to refuse the writes of a holder whose lease has ended.
//!
//! A process can be paused, or cut off from the network, for longer than its TTL. When it continues, it
//! may write although another process holds the key. Each grant has a [`Fence`](crate::Fence) that is
//! higher than all earlier ones of its key. So the statement that writes can compare it. A fence fits a
//! `BIGINT`: `i64::try_from(guard.fence().get())` never fails.
//!
//! # One row
//!
//! Add a column `fence BIGINT NOT NULL DEFAULT 0` to the table, and send the fence with each write:
//!
//! ```sql
//! UPDATE accounts SET balance = $2, fence = $3
//! WHERE id = $1 AND fence <= $3
//! ```
//!
//! If no row was updated, a later holder has written the row. Stop, and write nothing more.
//!
//! # Many rows
//!
//! Keep one row per lock in a table of your own, and begin each transaction with this statement:
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
//! If it returns no row, roll back. If it returns a row, no other fence of this resource can be recorded
//! until the transaction ends, so the latest holder makes all its writes. Also run the statement as soon
//! as you have the lock: from then on it refuses every earlier holder.
//!
//! # In the database of the locks
//!
//! If locks and data share a database, another check needs no column: call
//! [`release_in`](crate::PostgresBackend::release_in) in the transaction that writes. *True* means that
//! the lease is live, and that nobody acquires the key before the transaction ends.
//!
//! First take the lease from its guard, with [`detach`](crate::LockGuard::detach). Otherwise a renewal
//! may wait for the open transaction and then report that the lease was lost, although the work is done.
//! For the same reason, never call `release_in` inside [`run`](crate::LockRequest::run).

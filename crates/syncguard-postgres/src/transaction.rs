//! Locks inside a transaction of the user's own.

use sqlx::postgres::PgConnection;
use syncguard_core::{Acquired, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::time::timeout;

use crate::PostgresBackend;
use crate::error::timed_out;
use crate::row::acquired;
use crate::statement::Value;

impl PostgresBackend {
    /// Takes a key inside a transaction of yours: the lease begins to exist when you commit.
    ///
    /// For a lock that must not outlive the write it belongs to, such as a row that says "being
    /// processed". `Granted` is a promise only once the commit has succeeded; after a rollback there
    /// was no lease, and nothing is left to release. A lease that is to go on after the commit is
    /// given to a guard by `adopt`, or renewed and released through the backend.
    ///
    /// # What it does not promise
    ///
    /// - The TTL counts from this call, not from the commit.
    /// - Until you commit, others cannot see the lease. They *wait* for your transaction instead of
    ///   being told that the key is held, up to half of their command timeout, and then get
    ///   [`ErrorCode::NetworkTimeout`](syncguard_core::ErrorCode::NetworkTimeout). Keep the
    ///   transaction short.
    /// - The fence is final with the commit. Write it within the transaction as you like, but send it
    ///   nowhere else before: after a rollback the same number is given to somebody else.
    /// - Two transactions that take the same keys in different orders can deadlock, as with rows.
    /// - At REPEATABLE READ or SERIALIZABLE the answer is that of your snapshot, so `Held` may be out
    ///   of date, and a key that was taken since fails the transaction with 40001
    ///   ([`ErrorCode::ServiceUnavailable`](syncguard_core::ErrorCode::ServiceUnavailable)): run the
    ///   transaction again, as for any serialization failure.
    ///
    /// # Errors
    ///
    /// As [`acquire`](syncguard_core::Backend::acquire). Nothing is retried, and after an error of
    /// the server the transaction can only be rolled back.
    ///
    /// # Cancel safety
    ///
    /// After a dropped future or an error, roll back.
    pub async fn acquire_in(
        &self,
        transaction: &mut PgConnection,
        key: &Key,
        ttl: Ttl,
    ) -> Result<Acquired> {
        let id = LockId::random()?;
        let values = [
            Value::Text(Some(key.as_str())),
            Value::Text(Some(id.as_str())),
            Value::ttl(ttl),
            Value::Millis(None),
        ];
        let statement = &self.statements().acquire;
        match timeout(self.command_timeout(), statement.fetch(transaction, &values)).await {
            Ok(Ok(row)) => acquired(row, key, &id),
            Ok(Err(error)) => Err(self.failed(Operation::Acquire, error)),
            Err(_) => Err(timed_out(Operation::Acquire)),
        }
        .map_err(|error| error.with_key(key))
    }

    /// Ends a lease inside a transaction of yours, so that it ends exactly when the work commits.
    ///
    /// This is the strongest way to finish: *true* means that the lease is live and that nobody can
    /// take the key over before your transaction ends. On *false* the lease was lost: roll back, and
    /// nothing of a stale holder's work remains. After a rollback the lease is as it was.
    ///
    /// Until you commit, whoever wants the key waits or is told that it is held.
    ///
    /// # Errors
    ///
    /// As [`release`](syncguard_core::Backend::release). Nothing is retried, and after an error of
    /// the server the transaction can only be rolled back.
    ///
    /// # Cancel safety
    ///
    /// After a dropped future or an error, roll back.
    pub async fn release_in(&self, transaction: &mut PgConnection, lease: &Lease) -> Result<bool> {
        let values =
            [Value::Text(Some(lease.id().as_str())), Value::Text(None), Value::Millis(None)];
        let statement = &self.statements().release;
        match timeout(self.command_timeout(), statement.fetch(transaction, &values)).await {
            Ok(Ok(row)) => Ok(row.is_some()),
            Ok(Err(error)) => Err(self.failed(Operation::Release, error)),
            Err(_) => Err(timed_out(Operation::Release)),
        }
        .map_err(|error: syncguard_core::Error| error.with_key(lease.key()))
    }
}

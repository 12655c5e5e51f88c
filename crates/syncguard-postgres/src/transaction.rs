//! Locks inside a transaction of the user's own.

use sqlx::postgres::PgConnection;
use syncguard_core::{Acquired, Error, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::time::timeout;

use crate::PostgresBackend;
use crate::error::{classify_in_transaction, timed_out};
use crate::operations::Value;
use crate::record::acquired;

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
    ///   So can one that ends a lease with [`release_in`](Self::release_in) and then takes the same
    ///   key again: it has the row and wants the key, where all others go the other way.
    /// - Giving up after the command timeout does not end the wait on the server, and the rollback is
    ///   then a wait for the same transaction. Run `SET LOCAL lock_timeout = '2s'` first, or whatever
    ///   suits your transaction: its settings are yours, and nothing here changes them.
    /// - At REPEATABLE READ or SERIALIZABLE the answer is that of your snapshot, so `Held` may be out
    ///   of date, and a key that was taken since fails the transaction with 40001
    ///   ([`ErrorCode::ServiceUnavailable`](syncguard_core::ErrorCode::ServiceUnavailable)): run the
    ///   transaction again, as for any serialization failure.
    ///
    /// It takes a key and a TTL as `LockManager::lock` and `LockRequest::ttl` do:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use syncguard_postgres::{PostgresBackend, Result, sqlx};
    /// # async fn example(backend: PostgresBackend, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transaction = pool.begin().await?;
    /// let acquired =
    ///     backend.acquire_in(&mut transaction, "invoice:7", Duration::from_secs(60)).await?;
    /// # let _ = acquired;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](syncguard_core::Backend::acquire), and
    /// [`ErrorCode::InvalidArgument`](syncguard_core::ErrorCode::InvalidArgument) for a bad key or
    /// TTL. Nothing is retried, and after an error of
    /// the server the transaction can only be rolled back.
    ///
    /// # Cancel safety
    ///
    /// After a dropped future or an error, roll back.
    pub async fn acquire_in(
        &self,
        transaction: &mut PgConnection,
        key: impl TryInto<Key, Error: Into<Error>>,
        ttl: impl TryInto<Ttl, Error: Into<Error>>,
    ) -> Result<Acquired> {
        let key = &key.try_into().map_err(Into::into)?;
        let ttl = ttl.try_into().map_err(|bad| bad.into().with_key(key))?;
        let id = LockId::random()?;
        let values = [key.into(), (&id).into(), Value::ttl(ttl), Value::Millis(None)];
        let statement = &self.statements().acquire;
        match timeout(self.command_timeout(), statement.fetch_in_transaction(transaction, &values))
            .await
        {
            Ok(Ok(row)) => acquired(row, key, &id),
            Ok(Err(error)) => Err(classify_in_transaction(Operation::Acquire, self.names(), error)),
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
    /// # With a guard
    ///
    /// Take the lease from its guard first, with [`detach`](syncguard::LockGuard::detach), and do not
    /// call this inside [`run`](syncguard::LockRequest::run). Else a renewal by `keep_alive` may meet
    /// the open transaction, wait for it, find the lease gone once you have committed, and call it
    /// lost: `run` then drops its closure and returns [`ErrorCode::Lost`](syncguard_core::ErrorCode),
    /// although the work was committed, and a caller that tries again pays twice.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use syncguard_postgres::{LockManager, PostgresBackend, sqlx};
    ///
    /// # async fn example(backend: PostgresBackend) -> Result<(), Box<dyn std::error::Error>> {
    /// let locks = LockManager::new(backend.clone());
    /// let request = locks.lock("payment:42").ttl(Duration::from_secs(60)).keep_alive();
    /// let guard = request.acquire().await?;
    /// // ... what takes long, while the lease is kept alive; then:
    /// let lease = guard.detach();
    /// let mut transaction = backend.pool().begin().await?;
    /// sqlx::query("UPDATE payments SET paid = true WHERE id = 42").execute(&mut *transaction).await?;
    /// if backend.release_in(&mut transaction, &lease).await? {
    ///     transaction.commit().await?;
    /// } else {
    ///     transaction.rollback().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// From `detach` on nobody renews the lease, and where the transaction fails nobody releases it:
    /// give it to a guard again by `adopt`, release it through the backend, or let it expire.
    ///
    /// # What to mind
    ///
    /// - If there are waiters, your transaction notifies them with a NOTIFY. Such a transaction
    ///   cannot be prepared for a two-phase commit. None is sent where the server's queue of them is
    ///   nearly full, so that your commit does not fail for it.
    /// - Until you commit, other clients that acquire the key wait, or get *held*.
    /// - Taking the same key again in the same transaction can deadlock with others, as
    ///   [`acquire_in`](Self::acquire_in) says.
    /// - Giving up after the command timeout does not end the wait on the server, and the rollback is
    ///   then a wait for the same transaction: run `SET LOCAL lock_timeout = '2s'` or the like first.
    /// - At REPEATABLE READ or SERIALIZABLE the answer is that of your snapshot. A lease that was
    ///   granted after it is not seen, which is *false*, and one that was renewed or ended since
    ///   fails the transaction with 40001. So take the lock, and detach it, before the first
    ///   statement of the transaction.
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
        let (id, key) = (lease.id().into(), lease.key().into());
        let values = [id, Value::Text(None), Value::Millis(None), key];
        let statement = &self.statements().release;
        match timeout(self.command_timeout(), statement.fetch_in_transaction(transaction, &values))
            .await
        {
            Ok(Ok(row)) => Ok(row.is_some()),
            Ok(Err(error)) => Err(classify_in_transaction(Operation::Release, self.names(), error)),
            Err(_) => Err(timed_out(Operation::Release)),
        }
        .map_err(|error: Error| error.with_key(lease.key()))
    }
}

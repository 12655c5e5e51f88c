//! Locks inside a transaction of the user's own.

use sqlx::postgres::PgConnection;
use syncguard_core::{Acquired, Error, Key, Lease, LockId, Operation, Result, Ttl};
use tokio::time::timeout;

use crate::PostgresBackend;
use crate::error::{classify_in_transaction, timed_out};
use crate::operations::Value;
use crate::record::acquired;

impl PostgresBackend {
    /// Acquires a key inside a transaction of yours. The lease exists once you commit.
    ///
    /// Use it for a lock that must not outlive a write, such as a row that says "being processed".
    /// `Granted` counts only after the commit. After a rollback there is no lease, and nothing to
    /// release. To keep the lease after the commit, give it to a guard with
    /// [`adopt`](syncguard::LockRequest::adopt), or extend and release it through the backend.
    ///
    /// # Limits
    ///
    /// - The TTL starts with this call, not with the commit.
    /// - Until you commit, other clients cannot see the lease. They *wait* for your transaction instead
    ///   of learning that the key is held. After half of their command timeout they get
    ///   [`ErrorCode::NetworkTimeout`](syncguard_core::ErrorCode::NetworkTimeout). So keep the
    ///   transaction short.
    /// - The fence is final with the commit. You can write it in the same transaction, but do not send
    ///   it elsewhere before: after a rollback, another client gets the same number.
    /// - Two transactions that acquire the same keys in different orders can deadlock, as they can with
    ///   rows. So can one that ends a lease with [`release_in`](Self::release_in) and then acquires the
    ///   same key again, because it locks the row before the key, and all others do the reverse.
    /// - When the command timeout passes, the server still waits, and so does your rollback. Run
    ///   `SET LOCAL lock_timeout = '2s'` first, or the limit that suits your transaction. This method
    ///   changes no setting of your transaction.
    /// - At REPEATABLE READ or SERIALIZABLE, the answer is that of your snapshot, so `Held` may be out
    ///   of date. If another client acquired the key after the snapshot, the transaction fails with
    ///   40001 ([`ErrorCode::ServiceUnavailable`](syncguard_core::ErrorCode::ServiceUnavailable)). Run it
    ///   again, as after any serialization failure.
    ///
    /// The key and the TTL have the same types as in `LockManager::lock` and `LockRequest::ttl`:
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
    /// TTL. Nothing is retried. After an error of the server, you can only roll back.
    ///
    /// # Cancel safety
    ///
    /// If you drop the future, roll back.
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

    /// Releases a lease inside a transaction of yours. The lease ends when the work is committed.
    ///
    /// This is the strongest way to finish. *True* means that the lease is live, and that nobody can
    /// acquire the key before your transaction ends. *False* means that the lease was lost: roll back,
    /// and the stale holder has changed nothing. After a rollback, the lease is as it was.
    ///
    /// # With a guard
    ///
    /// First take the lease from its guard, with [`detach`](syncguard::LockGuard::detach). Do not call
    /// this method inside [`run`](syncguard::LockRequest::run). Otherwise a keep-alive renewal may wait
    /// for your open transaction, find no lease after your commit, and report a loss. `run` then drops
    /// its closure and returns [`ErrorCode::Lost`](syncguard_core::ErrorCode), although the work was
    /// committed. A caller that tries again then pays twice.
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
    /// After `detach`, nobody renews the lease. If the transaction fails, nobody releases it either. Give
    /// it to a guard again with `adopt`, release it through the backend, or let it expire.
    ///
    /// # Limits
    ///
    /// - If there are waiters, your transaction sends a NOTIFY when it commits. Postgres cannot prepare
    ///   such a transaction for a two-phase commit. If the server's notification queue is nearly full,
    ///   nothing is sent, because your commit could fail.
    /// - Until you commit, other clients that acquire the key wait, or learn that it is held.
    /// - If you acquire the same key again in the same transaction, it can deadlock with others: see
    ///   [`acquire_in`](Self::acquire_in).
    /// - When the command timeout passes, the server still waits, and so does your rollback. Run
    ///   `SET LOCAL lock_timeout = '2s'` or the like first.
    /// - At REPEATABLE READ or SERIALIZABLE, the answer is that of your snapshot. If the lease was granted
    ///   after the snapshot, the answer is *false*. If it was extended or ended since, the transaction
    ///   fails with 40001. So acquire the lock, and detach it, before the first statement of the
    ///   transaction.
    ///
    /// # Errors
    ///
    /// As [`release`](syncguard_core::Backend::release). Nothing is retried. After an error of the
    /// server, you can only roll back.
    ///
    /// # Cancel safety
    ///
    /// If you drop the future, roll back.
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

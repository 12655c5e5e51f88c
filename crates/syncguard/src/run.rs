//! Runs a closure under a lock.

use syncguard_core::{Error, ErrorCode, Operation};

use crate::{LockGuard, LockRequest};

impl LockRequest {
    /// Waits for the lock, runs `work` with it, and releases it: on success, on error, on panic, and
    /// if the future is dropped.
    ///
    /// The lease is renewed while `work` runs, and `work` is dropped at its next await point if the
    /// lease is lost. Bound the renewal with [`max_hold`](Self::max_hold), or switch it off with
    /// [`without_keep_alive`](Self::without_keep_alive): then `work` is dropped at the TTL.
    ///
    /// `work` returns your own `Result`. Its error type takes in the errors of this library through
    /// `From<Error>`, as with `?`. Write the closure as `async |lock| -> Result<_, MyError> { .. }`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use syncguard::Result;
    ///
    /// let fence = locks.lock("nightly").run(async |lock| -> Result<_> { Ok(lock.fence()) }).await?;
    /// assert_eq!(fence.get(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// Work that blocks its thread cannot be stopped, and may keep the renewal from running. Move it to `tokio::task::spawn_blocking` or `block_in_place`.
    ///
    /// # Errors
    ///
    /// - As [`acquire`](Self::acquire), before `work` has begun.
    /// - The error of `work`.
    /// - [`ErrorCode::Lost`] if the lease was lost: either `work` was stopped, or it ended without an
    ///   error after the lease had ended, because it did not yield. In the second case its effects
    ///   stand, and others may have worked at the same time.
    ///
    /// A release that fails is tried again in the background and does not hide the result. A release
    /// that hangs delays the result until the backend's time limit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `work` is dropped, and the lock is released in the background.
    pub async fn run<F, T, E>(self, work: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&LockGuard) -> Result<T, E>,
        E: From<Error>,
    {
        let keep_alive = self.settings().keep_alive.unwrap_or(true);
        let guard = self.wait_for_guard(keep_alive).await?;
        let lost = || Error::new(ErrorCode::Lost, Operation::Run).with_key(guard.key());
        let outcome = tokio::select! {
            // The loss comes first: after a pause of the process, the work must not take one more
            // step before the loss is noticed.
            biased;
            () = guard.lost() => {
                let error = lost().with_message("the work was stopped because the lease was lost");
                // The guard is dropped, not released here: the network may be what was lost.
                return Err(error.into());
            }
            outcome = work(&guard) => outcome,
        };
        let outlived = lost().with_message("the lease had ended before the work was done");
        let in_time = !guard.is_lost();
        // If the release fails, it goes on in the background, and is reported there.
        let released = guard.release().await;
        let value = outcome?;
        if in_time && !matches!(released, Ok(false)) { Ok(value) } else { Err(outlived.into()) }
    }
}

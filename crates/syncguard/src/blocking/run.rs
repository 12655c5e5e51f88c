//! Runs a closure under a lock, on the thread of the caller.

use syncguard_core::{Error, ErrorCode, Operation};

use super::guard::LockGuard;
use super::request::LockRequest;

impl LockRequest {
    /// Waits for the lock, runs `work` with it on the calling thread, and releases it: on success, on
    /// error and on panic.
    ///
    /// The lease is renewed while `work` runs. Switch that off with
    /// [`without_keep_alive`](Self::without_keep_alive), and bound it with
    /// [`max_hold`](Self::max_hold).
    ///
    /// *A loss does not stop `work`*, because nothing can stop a thread from outside. Long work asks
    /// [`LockGuard::is_lost`] between its steps.
    ///
    /// `work` returns your own `Result`. Its error type takes in the errors of this library through
    /// `From<Error>`, as with `?`.
    ///
    /// ```
    /// # fn main() -> Result<(), syncguard::Error> {
    /// # use syncguard_memory::MemoryBackend;
    /// # let locks = syncguard::blocking::LockManager::connect(async { Ok(MemoryBackend::new()) })?;
    /// use syncguard::Result;
    ///
    /// let fence = locks.lock("nightly").run(|lock| -> Result<_> { Ok(lock.fence()) })?;
    /// assert_eq!(fence.get(), 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - As [`acquire`](Self::acquire), before `work` has begun.
    /// - The error of `work`.
    /// - [`ErrorCode::Lost`] if `work` came to its end without an error, but only after the lease had
    ///   ended. Its effects stand, and others may have worked at the same time.
    ///
    /// A release that fails is tried again in the background and does not hide the result. A release
    /// that hangs delays the result until the backend's time limit.
    pub fn run<F, T, E>(self, work: F) -> Result<T, E>
    where
        F: FnOnce(&LockGuard) -> Result<T, E>,
        E: From<Error>,
    {
        let guard = self.acquire_for_run()?;
        let outcome = work(&guard);
        let outlived = Error::new(ErrorCode::Lost, Operation::Run)
            .with_key(guard.key())
            .with_message("the lease had ended before the work was done");
        let in_time = !guard.is_lost();
        // If the release fails, it goes on in the background, and is reported there.
        let released = guard.release();
        let value = outcome?;
        if in_time && !matches!(released, Ok(false)) { Ok(value) } else { Err(outlived.into()) }
    }
}

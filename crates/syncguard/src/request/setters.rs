//! The setters of [`LockRequest`].

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::LockRequest;
use crate::Backoff;

impl LockRequest {
    /// Sets how long the lease lasts unless it is extended, rounded up to whole milliseconds.
    /// Default: 30 s.
    ///
    /// This is how long others are blocked if this process dies. With
    /// [`keep_alive`](Self::keep_alive), 10 to 30 s suit most work. Less costs more renewals and
    /// survives shorter network failures. Without it, make the TTL much longer than the work.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = Some(ttl);
        self
    }

    /// Sets how long to wait for the lock at most, counted from the first poll of the verb,
    /// whatever the server does. Default: 5 s. It must not be zero: for a single attempt there is
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// Setting it lifts the default limit of 10 retries, so that it is the only limit.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use std::time::Duration;
    ///
    /// let guard = locks.lock("import").wait(Duration::from_secs(60)).acquire().await?;
    /// # drop(guard); Ok(()) }
    /// ```
    pub const fn wait(mut self, limit: Duration) -> Self {
        self.settings.wait = Some(limit);
        self
    }

    /// Sets how often to try again at most. Default: 10 times, or without limit if
    /// [`wait`](Self::wait) is set.
    ///
    /// Time in the queue behind other waiters is no attempt. An attempt that a notification asks
    /// for is no retry.
    pub const fn max_retries(mut self, retries: u32) -> Self {
        self.settings.max_retries = Some(retries);
        self
    }

    /// Sets the pauses between attempts. Default: [`Backoff::default`].
    ///
    /// Only the first waiter of a process makes attempts. If the backend sends notifications, the
    /// backoff only finds a key whose release notified nobody, so it may be long.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use std::time::Duration;
    /// use syncguard::Backoff;
    ///
    /// let every_second = Backoff::fixed(Duration::from_secs(1));
    /// let guard = locks.lock("import").backoff(every_second).acquire().await?;
    /// # drop(guard); Ok(()) }
    /// ```
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Renews the lease after each third of its TTL, or a little earlier, for as long as the guard
    /// lives. Default for `run`.
    ///
    /// A renewal that fails is not a loss: it is tried again until the lease is over. Stop the work
    /// when [`LockGuard::lost`](crate::LockGuard::lost) resolves. [`run`](Self::run) does that for
    /// you.
    pub const fn keep_alive(mut self) -> Self {
        self.settings.keep_alive = Some(true);
        self
    }

    /// Does not renew the lease, even with [`run`](Self::run): it ends at its TTL. Default for the
    /// other verbs.
    pub const fn without_keep_alive(mut self) -> Self {
        self.settings.keep_alive = Some(false);
        self
    }

    /// Bounds how long the lock is held, whatever renews it, counted from the request. At the end
    /// the loss is signalled: [`run`](Self::run) stops the work with
    /// [`ErrorCode::Lost`](crate::ErrorCode::Lost). Default: no bound.
    ///
    /// Set it if work that hangs must not keep the lock for ever.
    pub const fn max_hold(mut self, limit: Duration) -> Self {
        self.settings.max_hold = Some(limit);
        self
    }

    /// A release in this process wakes this waiter, but its lease is not handed off to it.
    pub(crate) const fn without_handoff(mut self) -> Self {
        self.takes_handoff = false;
        self
    }

    /// Ends the wait with [`ErrorCode::Aborted`](crate::ErrorCode::Aborted) when this token is
    /// cancelled. A lock that is held already stays held. Default: none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use syncguard::{CancellationToken, ErrorCode};
    ///
    /// let token = CancellationToken::new();
    /// token.cancel(); // elsewhere, while this task waits
    /// let outcome = locks.lock("import").cancel(token).acquire().await;
    /// assert_eq!(outcome.unwrap_err().code(), ErrorCode::Aborted);
    /// # Ok(()) }
    /// ```
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = Some(token);
        self
    }
}

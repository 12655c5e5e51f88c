//! Leads while it can: campaigns, runs the work, steps down, and campaigns again.

use std::fmt::Display;

use syncguard_core::{ErrorCode, Result};
use tokio::time::{Instant, sleep};

use super::Election;
use super::term::{Led, Term};

impl Election {
    /// Campaigns, runs `work` while this candidate leads, steps down, and campaigns again, until the
    /// token is [cancelled](Self::cancel) or the manager is shut down.
    ///
    /// A clone of `work` is called once per term, and never without one. So what the closure captures is
    /// a reference, or can be cloned, as pools and managers can. Its future ends in one of these ways,
    /// and only then the lease is released:
    ///
    /// - It returns, with or without an error. The term ends, and the candidate pauses before it
    ///   campaigns again.
    /// - [`Term::ending`] resolves: no renewal has succeeded until a [margin](Self::margin) before the
    ///   deadline, the token is cancelled, the manager is shut down, or the term was resigned. The
    ///   lease is still renewed, but the work should finish up. After the margin it is dropped.
    /// - The lease is over, because no renewal succeeded or the store says so. The work is dropped at
    ///   its next await point, at the deadline at the latest.
    /// - It panics. The panic goes on, out of this future.
    ///
    /// A future that blocks its thread cannot be dropped, nor can a task or a thread that the work has
    /// started. Give these a [`WorkGuard`](Term::guard_work), so that the lease is not released before
    /// they have ended, and [`Term::lost_token`], so that they end. See also [`health`](Self::health)
    /// and [`abort_at_deadline`](Self::abort_at_deadline).
    ///
    /// Await this future to its end, or drop it. One that is kept without being polled leads for ever.
    ///
    /// ```no_run
    /// # async fn charge_what_is_due(_: syncguard::Fence) -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), syncguard::Error> {
    /// # let locks = syncguard::LockManager::new(syncguard_memory::MemoryBackend::new());
    /// use std::time::Duration;
    ///
    /// let election = locks.election("billing").candidate("pod-7");
    /// election
    ///     .lead(async |term| {
    ///         loop {
    ///             charge_what_is_due(term.fence()).await?;
    ///             tokio::select! {
    ///                 () = term.ending() => return Ok::<_, std::io::Error>(()),
    ///                 () = tokio::time::sleep(Duration::from_secs(60)) => {}
    ///             }
    ///         }
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`campaign`](Self::campaign), but the end by the token or by shutdown is `Ok`. After an error
    /// this process is no candidate any more, so watch for it. An error of `work` is logged as a
    /// warning and not returned.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `work` is dropped, and then the lease is released in the background.
    pub async fn lead<F, E>(&self, work: F) -> Result<()>
    where
        F: AsyncFnOnce(Term) -> Result<(), E> + Clone,
        E: Display,
    {
        let mut pauses = self.pause.pauses();
        loop {
            // Shutdown waits for a campaign and for the term that it may win.
            let tracked = self.shared.background.token();
            let term = match self.campaign_for(true).await {
                Ok(term) => Led::new(term, tracked),
                Err(error) if error.code() == ErrorCode::Aborted && self.is_stopped() => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let started = Instant::now();
            let worked = tokio::select! {
                // The end comes first: after a pause of the process, the work must not take one more
                // step before the loss is noticed.
                biased;
                () = term.must_stop() => Ok(()),
                worked = work.clone()(term.term().clone()) => worked,
            };
            if let Err(error) = worked {
                let key = term.term().key().fingerprint();
                tracing::warn!(%key, %error, "the work of a leader failed");
            }
            if started.elapsed() > self.settings.ttl() {
                pauses = self.pause.pauses();
            }
            term.end().await;
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => {}
                () = self.shared.background.closing().cancelled() => {}
                () = sleep(pauses.next()) => {}
            }
        }
    }
}

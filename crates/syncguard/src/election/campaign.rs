//! One campaign of a candidate: what it asks for, and the event that tells how it ended.

use syncguard_core::{Error, ErrorCode, Fence, Key, Operation, Publication, Result};
use tokio::time::Instant;

use super::Election;
use super::term::{Conditions, Term, WeakTerm};
use crate::LockRequest;
use crate::event::Outcome;
use crate::observe::Observed;

impl Election {
    /// Campaigns. With `led`, the term is ended by [`lead`](Self::lead), after the work.
    pub(super) async fn campaign_for(&self, led: bool) -> Result<Term> {
        let mut report = self.key.as_ref().ok().map(|key| Report::new(&self.shared.backend, key));
        let result = self.win(led).await;
        if let Some(report) = &mut report {
            report.outcome = match &result {
                Ok(_) => Outcome::Done,
                Err(error) => Outcome::Failed(error.code()),
            };
        }
        result.map_err(|error| error.with_operation(Operation::Campaign))
    }

    async fn win(&self, led: bool) -> Result<Term> {
        let conditions = self.conditions(led)?;
        let request = LockRequest::new(self.shared.clone(), self.key.clone(), self.settings);
        let request = request.cancel(self.cancel.clone()).without_handoff();
        let guard = request.wait_for_guard(true).await?;
        let term = Term::begin(guard, conditions)?;
        let mut terms = self.terms();
        terms.retain(WeakTerm::is_alive);
        terms.push(term.downgrade());
        drop(terms);
        Ok(term)
    }

    /// Checks what is not part of a lock request.
    fn conditions(&self, led: bool) -> Result<Conditions> {
        let ttl = self.settings.ttl();
        let margin = self.margin.unwrap_or(ttl / 3);
        if margin > ttl / 2 {
            let error = Error::new(ErrorCode::InvalidArgument, Operation::Campaign);
            let error = self.key.as_ref().map_or(error.clone(), |key| error.with_key(key));
            return Err(error.with_message(
                "the margin is more than half of the TTL, so a term would end before its first \
                 renewal: raise the TTL or lower the margin",
            ));
        }
        let candidate = self.candidate.clone().unwrap_or_default();
        let value = self.value.clone().unwrap_or_default();
        // Checked now, because the fence of the term is not known before it is won.
        Publication::new(Fence::MAX_GRANTED, candidate.as_str(), value.as_slice())?;
        Ok(Conditions {
            led,
            margin,
            cancel: self.cancel.clone(),
            publishes: self.candidate.is_some() || self.value.is_some(),
            candidate,
            value,
            aborts: self.abort_at_deadline,
        })
    }
}

/// The one event of a campaign. It is sent when this is dropped, so also for a future that is dropped.
struct Report<'a> {
    backend: &'a Observed,
    key: &'a Key,
    called: Instant,
    outcome: Outcome,
}

impl<'a> Report<'a> {
    fn new(backend: &'a Observed, key: &'a Key) -> Self {
        let outcome = Outcome::Failed(ErrorCode::Aborted);
        Self { backend, key, called: Instant::now(), outcome }
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let Self { backend, key, called, outcome } = *self;
        backend.report(Operation::Campaign, outcome, key, None, called, None);
    }
}

#[cfg(test)]
mod tests {
    use syncguard_memory::MemoryBackend;

    use crate::{LockManager, Result};

    #[tokio::test]
    async fn terms_that_have_ended_are_forgotten() -> Result<()> {
        let election = LockManager::new(MemoryBackend::new()).election("key");
        for _ in 0..100 {
            election.campaign().await?.resign().await?;
        }
        // A task of the term before may not have ended yet.
        let remembered = election.terms().len();
        assert!(remembered < 10, "{remembered}");
        Ok(())
    }
}

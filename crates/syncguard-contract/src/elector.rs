//! The electors that the cases judge: that of the runtime, and four with a defect each.
//!
//! A suite that passes a defective elector proves nothing. Each of these defects was seen in an
//! elector that is in wide use.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncguard::{
    CancellationToken, Election, Fence, Leadership, LockGuard, LockManager, Observation, Term,
};
use syncguard_core::{Key, Result};

/// How terms are led, ended and observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elector {
    /// That of the runtime.
    Sound,
    /// Steps down when it is told to, and lets the work end later.
    ReleasesFirst,
    /// Remembers that it leads until it learns otherwise.
    CachesABool,
    /// Tells of leaders only.
    NeverSaysVacant,
    /// Makes one request to step down, and takes its failure for an answer.
    ForgetsAFailedResignation,
}

/// A term of an elector.
pub(crate) enum Held {
    Term(Election, Term),
    /// A defective elector remembers a fence.
    Lock {
        locks: LockManager,
        guard: LockGuard,
        remembered: Fence,
    },
}

impl Elector {
    /// Runs the work as a leader, once, and tells it when it should end.
    pub(crate) async fn lead(
        self,
        locks: &LockManager,
        key: &Key,
        stop: &CancellationToken,
        work: impl AsyncFn(CancellationToken, Fence),
    ) -> Result<()> {
        if self == Self::ReleasesFirst {
            let guard = locks.lock(key).keep_alive().acquire().await?;
            let (ending, fence) = (CancellationToken::new(), guard.fence());
            let end = async {
                stop.cancelled().await;
                let released = guard.release().await;
                ending.cancel();
                released.map(drop)
            };
            let ((), ended) = tokio::join!(work(ending.clone(), fence), end);
            return ended;
        }
        let lead = locks.election(key).cancel(stop.clone());
        lead.lead(async |term: Term| -> std::result::Result<(), Infallible> {
            let ending = CancellationToken::new();
            let end = async {
                term.ending().await;
                ending.cancel();
            };
            tokio::join!(work(ending.clone(), term.fence()), end);
            Ok(())
        })
        .await
    }

    /// Campaigns until it leads.
    pub(crate) async fn campaign(
        self,
        locks: &LockManager,
        key: &Key,
        ttl: Duration,
    ) -> Result<Held> {
        if matches!(self, Self::CachesABool | Self::ForgetsAFailedResignation) {
            let guard = locks.lock(key).ttl(ttl).wait(ttl).acquire().await?;
            let (locks, remembered) = (locks.clone(), guard.fence());
            return Ok(Held::Lock { locks, guard, remembered });
        }
        let election = locks.election(key).ttl(ttl);
        let term = election.campaign().await?;
        Ok(Held::Term(election, term))
    }

    /// What an observer is told, in order, until `enough`.
    pub(crate) async fn observe(
        self,
        locks: &LockManager,
        key: &Key,
        seen: &Arc<Mutex<Vec<Leadership>>>,
        enough: impl Fn(&[Leadership]) -> bool,
    ) -> Result<()> {
        let mut leaders: Observation = locks.election(key).observe()?;
        while let Some(leadership) = leaders.next().await {
            if self == Self::NeverSaysVacant && leadership == Leadership::Vacant {
                continue;
            }
            let mut seen = seen.lock().expect("no case panics while it is locked");
            seen.push(leadership);
            if enough(&seen) {
                break;
            }
        }
        Ok(())
    }
}

impl Held {
    /// The fence of the term, if this process leads now.
    pub(crate) fn leads(&self) -> Option<Fence> {
        match self {
            Self::Term(election, _) => election.term().map(|term| term.fence()),
            Self::Lock { remembered, .. } => Some(*remembered),
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        match self {
            Self::Term(_, term) => term.fence(),
            Self::Lock { remembered, .. } => *remembered,
        }
    }

    /// Steps down.
    pub(crate) async fn resign(self) -> Result<bool> {
        match self {
            Self::Term(_, term) => term.resign().await,
            Self::Lock { locks, guard, .. } => {
                let lease = guard.detach();
                locks.release_by_id(lease.id()).await.or(Ok(false))
            }
        }
    }
}

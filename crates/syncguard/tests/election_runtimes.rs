//! N2 to N4: terms that outlive the runtime in which they were won.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::plain;
use support::threads::{one_thread, two_threads};
use syncguard::{CancellationToken, Leadership, LockManager, Operation, Result, Term};
use syncguard_memory::Fault;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A term that was won in a runtime which is gone.
fn orphan(locks: &LockManager, ttl: Duration) -> Term {
    let gone = one_thread();
    gone.block_on(locks.election("key").ttl(ttl).candidate("ada").campaign()).unwrap()
}

#[test]
fn n2_a_term_goes_on_in_the_runtime_that_the_manager_knows() {
    let ttl = SECOND;
    let current = two_threads();
    let locks = LockManager::builder(plain()).runtime(current.handle().clone()).build();
    let term = orphan(&locks, ttl);
    current.block_on(async {
        assert!(
            timeout(3 * ttl, term.ending()).await.is_err(),
            "it is renewed, so it does not end"
        );
        assert!(!term.remaining().is_zero() && !term.lost_token().is_cancelled());
        // What it published is renewed too.
        let leader = locks.election("key").observe().unwrap().next().await;
        let Some(Leadership::Led { fence, candidate, .. }) = leader else {
            panic!("the term is live, but {leader:?}")
        };
        assert_eq!((fence, candidate.as_deref()), (term.fence(), Some("ada")));
        assert!(term.resign().await.unwrap());
        term.ending().await;
        assert!(!locks.is_locked("key").await.unwrap());
    });
}

#[test]
fn n7_a_value_from_a_runtime_that_is_not_driven_holds_up_no_other() {
    let (home, left, backend) = (two_threads(), one_thread(), plain());
    let locks = LockManager::new(backend.clone());
    let term = home.block_on(locks.election("key").ttl(HOUR).campaign()).unwrap();
    backend.next(Operation::Publish, Fault::HoldRequest);
    let sent = left.block_on(async { timeout(SECOND / 10, term.publish("1")).await });
    assert!(sent.is_err(), "its caller leaves before the answer");
    backend.open();
    home.block_on(async { timeout(30 * SECOND, term.publish("2")).await.unwrap().unwrap() });
    drop(left);
}

#[test]
fn n7_a_value_is_published_where_the_term_is_renewed() {
    let current = two_threads();
    let locks = LockManager::builder(plain()).runtime(current.handle().clone()).build();
    let term = one_thread().block_on(locks.election("key").ttl(HOUR).campaign()).unwrap();
    // A caller starts to publish on a runtime that is then not driven any more.
    let left = one_thread();
    drop(left.block_on(async { timeout(Duration::ZERO, term.publish("1")).await }));
    one_thread().block_on(async {
        timeout(30 * SECOND, term.publish("2")).await.unwrap().unwrap();
    });
    drop(left);
}

#[test]
fn n2_a_term_that_no_runtime_can_keep_is_lost_at_once() {
    let locks = LockManager::new(plain());
    let term = orphan(&locks, HOUR);
    one_thread().block_on(async {
        timeout(30 * SECOND, term.ending()).await.unwrap();
        timeout(30 * SECOND, term.lost()).await.unwrap();
    });
    assert!(term.lost_token().is_cancelled() && term.remaining().is_zero());
    assert_eq!(locks.terms(), 0);
    // Another runtime can still free the key.
    one_thread().block_on(async {
        assert!(term.resign().await.unwrap());
        assert!(!locks.is_locked("key").await.unwrap());
    });
}

#[test]
fn n4_a_term_without_its_runtime_resigns_on_the_current_one() {
    for current in [one_thread(), two_threads()] {
        let locks = LockManager::new(plain());
        let term = orphan(&locks, HOUR);
        current.block_on(async {
            drop(term);
            locks.shutdown().await.unwrap();
            assert!(!locks.is_locked("key").await.unwrap());
        });
    }
}

#[test]
fn n3_work_whose_runtime_ends_is_dropped_and_then_its_lease_is_released() {
    let current = two_threads();
    let locks = LockManager::builder(plain()).runtime(current.handle().clone()).build();
    let (gone, stopped, working) =
        (two_threads(), CancellationToken::new(), CancellationToken::new());
    let (election, works) = (locks.election("key").ttl(HOUR), working.clone());
    let guard = stopped.clone().drop_guard();
    gone.spawn(async move {
        let guard = Arc::new(guard);
        let lead = election.lead(async |term: Term| -> Result<()> {
            let _stopped = guard;
            works.cancel();
            term.lost().await;
            Ok(())
        });
        lead.await
    });
    gone.block_on(working.cancelled());
    assert!(!stopped.is_cancelled());
    drop(gone);
    assert!(stopped.is_cancelled());
    current.block_on(async {
        // The next candidate need not wait for the TTL of an hour.
        let next = timeout(30 * SECOND, locks.election("key").campaign()).await.unwrap().unwrap();
        assert!(next.resign().await.unwrap());
    });
}

//! Commits of which the client does not know, or knows wrongly, what became of them.

use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, ErrorCode};
use tokio::sync::mpsc::unbounded_channel;

use super::faults::REFUSALS;
use super::proxy::{COMMIT, Verdict};
use super::stored::fence_path;
use super::{Emulator, LONG, cases, fresh_id, fresh_key, granted, ttl};

cases![
    a4_a_lost_reply_to_an_acquire,
    r2_a_lost_reply_to_a_release,
    r3_a_lost_reply_to_an_extend,
    a4_an_acquire_that_was_applied_and_refused,
    a4_a_last_attempt_that_was_applied_and_refused,
    r2_a_release_that_was_applied_and_refused,
    r3_an_extend_that_was_applied_and_refused,
    a4_a_commit_that_comes_late,
];

/// What a client can get when its connection is cut.
const LOST: [Code; 3] = [Code::DeadlineExceeded, Code::Unavailable, Code::Unknown];

async fn a4_a_lost_reply_to_an_acquire(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in LOST {
        let (key, id) = (fresh_key(), fresh_id());
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let error = backend.acquire(&key, &id, ttl(LONG)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        let stored = backend.get(&key).await.unwrap().unwrap();
        let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
        assert_eq!(lease.fence(), stored.fence());
        assert_eq!(lease.fence().get(), 1);
        assert!(backend.release(&lease).await.unwrap());
    }
}

async fn r2_a_lost_reply_to_a_release(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    proxy.judge_next(COMMIT, [Verdict::Lose(Code::Unavailable)]);
    backend.release(&lease).await.unwrap_err();
    assert!(!backend.release(&lease).await.unwrap());
    let next = granted(backend.acquire(lease.key(), &fresh_id(), ttl(LONG)).await);
    assert_eq!(next.fence().get(), 2);
}

async fn r3_a_lost_reply_to_an_extend(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    proxy.judge_next(COMMIT, [Verdict::Lose(Code::Unavailable)]);
    backend.extend(&lease, ttl(2 * LONG)).await.unwrap_err();
    // Its revision is an old one now.
    let extended = backend.extend(&lease, ttl(LONG)).await.unwrap().unwrap();
    assert_eq!(extended.fence(), lease.fence());
    assert!(backend.release(&extended).await.unwrap());
}

async fn a4_an_acquire_that_was_applied_and_refused(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let (key, id) = (fresh_key(), fresh_id());
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
        assert_eq!(lease.fence().get(), 1);
        assert!(backend.release(&lease).await.unwrap());
    }
}

/// After the last refusal nothing is tried again, but the key must not be held by an id that was
/// told that another holds it.
async fn a4_a_last_attempt_that_was_applied_and_refused(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let refuse = |times| {
        let mut commits = 0;
        proxy.judge(move |method| {
            commits += usize::from(method == COMMIT);
            match commits {
                n if method != COMMIT || n > times => Verdict::Pass,
                n if n == times => Verdict::Lose(Code::Aborted),
                _ => Verdict::Refuse(Code::Aborted),
            }
        });
    };
    // An acquire commits ten times.
    let (key, id) = (fresh_key(), fresh_id());
    refuse(10);
    let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
    assert_eq!((lease.id(), lease.fence().get()), (&id, 1));
    // Extend and release also try once without reading.
    refuse(11);
    let error = backend.extend(&lease, ttl(LONG)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    refuse(11);
    let error = backend.release(&lease).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert!(!backend.release(&lease).await.unwrap());
}

/// To the one who releases it looks as if another had, so it is not told that it did.
async fn r2_a_release_that_was_applied_and_refused(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        assert!(!backend.release(&lease).await.unwrap());
        let next = granted(backend.acquire(lease.key(), &fresh_id(), ttl(LONG)).await);
        assert_eq!(next.fence().get(), 2);
    }
}

async fn r3_an_extend_that_was_applied_and_refused(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let extended = backend.extend(&lease, ttl(2 * LONG)).await.unwrap().unwrap();
        assert_eq!(extended.fence(), lease.fence());
        assert!(extended.expires_at() > lease.expires_at());
        assert!(backend.release(&extended).await.unwrap());
    }
}

/// The client gives up, and comes again; only then its first commit arrives.
async fn a4_a_commit_that_comes_late(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let raw = emulator.raw().await;
    for released in [false, true] {
        let (key, id) = (fresh_key(), fresh_id());
        let (keeper, mut kept) = unbounded_channel();
        proxy.judge_next(COMMIT, [Verdict::Keep(keeper)]);
        let first = tokio::spawn({
            let (backend, key, id) = (backend.clone(), key.clone(), id.clone());
            async move { backend.acquire(&key, &id, ttl(LONG)).await }
        });
        let late = kept.recv().await.unwrap();
        // As when its limit passes.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());

        let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
        if released {
            assert!(backend.release(&lease).await.unwrap());
        }
        let status = raw.0.get().commit(late).await.unwrap_err();
        assert!(REFUSALS.contains(&status.code()), "{status}");

        let record = backend.get(&key).await.unwrap();
        let counter = raw.get(&fence_path(&key)).await.unwrap();
        assert_eq!(counter["fence"], "000000000000001");
        if released {
            assert_eq!(record, None);
        } else {
            assert_eq!(record.unwrap().fence(), lease.fence());
            proxy.seen();
            assert!(backend.release(&lease).await.unwrap());
            assert_eq!(proxy.seen(), [COMMIT], "the document is as the lease left it");
        }
    }
}

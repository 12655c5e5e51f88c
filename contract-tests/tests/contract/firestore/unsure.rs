//! Commits whose result the client does not know, or gets wrong.

use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, ErrorCode};
use tokio::sync::mpsc::unbounded_channel;

use super::faults::REFUSALS;
use super::proxy::{COMMIT, Verdict};
use super::stored::fence_path;
use super::{Emulator, LONG, cases, fresh_id, fresh_key, granted, ttl};

cases![
    a4_an_acquire_repeated_after_a_lost_reply_returns_its_lease,
    r2_a_release_repeated_after_a_lost_reply_is_false,
    r3_an_extend_repeated_after_a_lost_reply_works,
    a4_an_acquire_applied_but_refused_returns_its_lease,
    a4_a_last_attempt_applied_but_refused_returns_its_lease,
    r2_a_release_applied_but_refused_is_false,
    r3_an_extend_applied_but_refused_works,
    a4_a_late_commit_changes_nothing,
];

/// The codes that a client can get when its connection is cut.
const LOST: [Code; 3] = [Code::DeadlineExceeded, Code::Unavailable, Code::Unknown];

async fn a4_an_acquire_repeated_after_a_lost_reply_returns_its_lease(emulator: Emulator) {
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

async fn r2_a_release_repeated_after_a_lost_reply_is_false(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    proxy.judge_next(COMMIT, [Verdict::Lose(Code::Unavailable)]);
    backend.release(&lease).await.unwrap_err();
    assert!(!backend.release(&lease).await.unwrap());
    let next = granted(backend.acquire(lease.key(), &fresh_id(), ttl(LONG)).await);
    assert_eq!(next.fence().get(), 2);
}

async fn r3_an_extend_repeated_after_a_lost_reply_works(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    proxy.judge_next(COMMIT, [Verdict::Lose(Code::Unavailable)]);
    backend.extend(&lease, ttl(2 * LONG)).await.unwrap_err();
    // The extend changed the document, so the revision in `lease` is outdated.
    let extended = backend.extend(&lease, ttl(LONG)).await.unwrap().unwrap();
    assert_eq!(extended.fence(), lease.fence());
    assert!(backend.release(&extended).await.unwrap());
}

async fn a4_an_acquire_applied_but_refused_returns_its_lease(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let (key, id) = (fresh_key(), fresh_id());
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
        assert_eq!(lease.fence().get(), 1);
        assert!(backend.release(&lease).await.unwrap());
    }
}

/// After the last refusal the client does not try again. The result must not be *held* if the id
/// itself holds the key.
async fn a4_a_last_attempt_applied_but_refused_returns_its_lease(emulator: Emulator) {
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
    // An acquire tries to commit ten times.
    let (key, id) = (fresh_key(), fresh_id());
    refuse(10);
    let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
    assert_eq!((lease.id(), lease.fence().get()), (&id, 1));
    // Extend and release also try once before they read.
    refuse(11);
    let error = backend.extend(&lease, ttl(LONG)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    refuse(11);
    let error = backend.release(&lease).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert!(!backend.release(&lease).await.unwrap());
}

/// The caller cannot see that its own commit ended the lease, so the release returns false.
async fn r2_a_release_applied_but_refused_is_false(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        assert!(!backend.release(&lease).await.unwrap());
        let next = granted(backend.acquire(lease.key(), &fresh_id(), ttl(LONG)).await);
        assert_eq!(next.fence().get(), 2);
    }
}

async fn r3_an_extend_applied_but_refused_works(emulator: Emulator) {
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

/// The client gives up and tries again. Its first commit arrives only after that.
async fn a4_a_late_commit_changes_nothing(emulator: Emulator) {
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
        // The same happens when the command timeout passes.
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
            assert_eq!(proxy.seen(), [COMMIT], "the late commit changed the document");
        }
    }
}

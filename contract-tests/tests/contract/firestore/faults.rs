//! Requests per operation, and requests that are refused or never answered.

use std::time::Duration;

use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Acquired, Backend, ErrorCode};
use tokio::time::Instant;

use super::proxy::{COMMIT, Proxy, QUERY, READ, Verdict};
use super::{
    Emulator, LIMIT, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl,
    without_revision,
};

cases![
    each_operation_sends_the_documented_requests,
    a1_a_refused_commit_reads_and_decides_again,
    a1_endless_contention_is_held,
    e1_every_grpc_code_has_its_error_code,
    e1_a_reply_without_documents_is_not_a_free_key,
    e1_a_reply_without_a_message_is_not_an_unknown_id,
    e1_each_request_gets_the_rest_of_the_command_timeout,
    e1_a_server_that_hangs_is_a_timeout,
    e1_a_lost_server_is_unavailable,
];

async fn each_operation_sends_the_documented_requests(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let (key, id, ttl) = (fresh_key(), fresh_id(), ttl(LONG));

    let lease = granted(backend.acquire(&key, &id, ttl).await);
    assert_eq!(proxy.seen(), [READ, COMMIT], "acquire");
    backend.acquire(&key, &fresh_id(), ttl).await.unwrap();
    assert_eq!(proxy.seen(), [READ], "acquire, held");
    granted(backend.acquire(&key, &id, ttl).await);
    assert_eq!(proxy.seen(), [READ, COMMIT], "acquire again");
    let extended = backend.extend(&lease, ttl).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [COMMIT, READ, COMMIT], "extend, with an old revision");
    let extended = backend.extend(&extended, ttl).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [COMMIT], "extend");
    backend.extend(&without_revision(&lease), ttl).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [READ, COMMIT], "extend, without a revision");
    let extended_by_id = backend.extend_by_id(&id, ttl).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [QUERY, COMMIT], "extend by id");
    backend.get(&key).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [READ], "get");
    backend.find(&id).await.unwrap().unwrap();
    assert_eq!(proxy.seen(), [QUERY], "find");
    assert!(backend.release(&extended_by_id).await.unwrap());
    assert_eq!(proxy.seen(), [COMMIT], "release");
    assert!(!backend.release(&extended).await.unwrap());
    assert_eq!(proxy.seen(), [COMMIT, READ], "release again");
    assert!(!backend.release_by_id(&id).await.unwrap());
    assert_eq!(proxy.seen(), [QUERY], "release again, by id");

    granted(backend.acquire(&key, &id, ttl).await);
    proxy.seen();
    assert!(backend.release_by_id(&id).await.unwrap());
    assert_eq!(proxy.seen(), [QUERY, COMMIT], "release by id");
}

/// The codes by which Firestore or its emulator refuses a commit because a document has changed.
pub(super) const REFUSALS: [Code; 4] =
    [Code::Aborted, Code::AlreadyExists, Code::FailedPrecondition, Code::NotFound];

async fn a1_a_refused_commit_reads_and_decides_again(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in REFUSALS {
        let (key, id, ttl) = (fresh_key(), fresh_id(), ttl(LONG));
        let refuse = || {
            proxy.seen();
            proxy.judge_next(COMMIT, [Verdict::Refuse(code), Verdict::Refuse(code)]);
        };
        refuse();
        let lease = granted(backend.acquire(&key, &id, ttl).await);
        assert_eq!(proxy.seen(), [READ, COMMIT, READ, COMMIT, READ, COMMIT]);
        refuse();
        let lease = backend.extend(&lease, ttl).await.unwrap().unwrap();
        assert_eq!(proxy.seen(), [COMMIT, READ, COMMIT, READ, COMMIT]);
        refuse();
        assert!(backend.extend_by_id(&id, ttl).await.unwrap().is_some());
        assert_eq!(proxy.seen(), [QUERY, COMMIT, QUERY, COMMIT, QUERY, COMMIT]);
        refuse();
        assert!(backend.release(&lease).await.unwrap());
    }
}

async fn a1_endless_contention_is_held(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let ttl = ttl(LONG);
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl).await);
    proxy.judge(|method| match method {
        COMMIT => Verdict::Refuse(Code::Aborted),
        _ => Verdict::Pass,
    });
    proxy.seen();
    let acquired = backend.acquire(&fresh_key(), &fresh_id(), ttl).await.unwrap();
    assert_eq!(acquired, Acquired::Held { remaining: None });
    let requests = proxy.seen().len();
    assert!((4..=40).contains(&requests), "{requests}");
    // The lease is still live, so extend and release must not report that it is gone.
    let error = backend.extend(&lease, ttl).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    let error = backend.release_by_id(lease.id()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

async fn e1_every_grpc_code_has_its_error_code(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let ttl = ttl(LONG);
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl).await);
    for (code, expected) in [
        (Code::Cancelled, ErrorCode::ServiceUnavailable),
        (Code::Unknown, ErrorCode::ServiceUnavailable),
        (Code::InvalidArgument, ErrorCode::InvalidArgument),
        (Code::DeadlineExceeded, ErrorCode::NetworkTimeout),
        (Code::NotFound, ErrorCode::InvalidArgument),
        (Code::AlreadyExists, ErrorCode::Internal),
        (Code::PermissionDenied, ErrorCode::AuthFailed),
        (Code::ResourceExhausted, ErrorCode::RateLimited),
        (Code::FailedPrecondition, ErrorCode::InvalidArgument),
        (Code::Aborted, ErrorCode::ServiceUnavailable),
        (Code::OutOfRange, ErrorCode::Internal),
        (Code::Unimplemented, ErrorCode::Internal),
        (Code::Internal, ErrorCode::ServiceUnavailable),
        (Code::Unavailable, ErrorCode::ServiceUnavailable),
        (Code::DataLoss, ErrorCode::Internal),
        (Code::Unauthenticated, ErrorCode::AuthFailed),
    ] {
        proxy.judge(move |_| Verdict::Refuse(code));
        let errors = [
            backend.acquire(lease.key(), lease.id(), ttl).await.unwrap_err(),
            backend.get(lease.key()).await.unwrap_err(),
            backend.find(lease.id()).await.unwrap_err(),
            backend.extend(&without_revision(&lease), ttl).await.unwrap_err(),
            backend.release_by_id(lease.id()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), expected, "{code:?}: {error}");
            let name = error.key().or(error.id());
            assert!(name.is_some(), "{error} names neither key nor id");
        }
        if !REFUSALS.contains(&code) {
            proxy.judge_next(COMMIT, [Verdict::Refuse(code)]);
            let error = backend.extend(&lease, ttl).await.unwrap_err();
            assert_eq!(error.code(), expected, "commit, {code:?}: {error}");
        }
    }
}

async fn e1_a_reply_without_documents_is_not_a_free_key(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let key = fresh_key();
    proxy.judge_next(READ, [Verdict::Refuse(Code::Ok), Verdict::Refuse(Code::Ok)]);
    let error = backend.acquire(&key, &fresh_id(), ttl(LONG)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert_eq!(proxy.seen(), [READ]);
    let error = backend.get(&key).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
}

async fn e1_a_reply_without_a_message_is_not_an_unknown_id(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    let cut = || proxy.judge_next(QUERY, [Verdict::Refuse(Code::Ok)]);
    cut();
    let error = backend.find(lease.id()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    cut();
    let error = backend.release_by_id(lease.id()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    assert!(backend.release_by_id(lease.id()).await.unwrap());
}

async fn e1_each_request_gets_the_rest_of_the_command_timeout(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let delay = Duration::from_millis(200);
    proxy.judge_next(READ, [Verdict::Delay(delay)]);
    granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    let limits = proxy.limits();
    let &[read, commit] = &limits[..] else { panic!("{limits:?}") };
    assert!(read <= LIMIT, "{read:?}");
    // The client rounds the timeouts up.
    assert!(commit + delay <= read + Duration::from_millis(1), "{read:?}, {commit:?}");
}

async fn e1_a_server_that_hangs_is_a_timeout(emulator: Emulator) {
    let proxy = Proxy::before(&emulator.address);
    let limit = Duration::from_secs(1);
    let backend = builder(&proxy.address()).command_timeout(limit).connect(PROJECT).await.unwrap();
    proxy.judge(|_| Verdict::Hang);
    let begin = Instant::now();
    let error = backend.get(&fresh_key()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
    let error = backend.release_by_id(&fresh_id()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NetworkTimeout);
    assert!(begin.elapsed() >= 2 * limit);
}

async fn e1_a_lost_server_is_unavailable(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let key = fresh_key();
    backend.get(&key).await.unwrap();
    drop(proxy);
    let error = loop {
        // The connection ends shortly after the proxy.
        if let Err(error) = backend.get(&key).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable, "{error}");
}

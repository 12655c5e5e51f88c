//! What errors say, and what neither errors nor logs may say.

use std::error::Error as StdError;
use std::time::Duration;

use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, Error, ErrorCode, FirestoreBackend, LockManager, Operation};

use contract_tests::ports::free_port;

use super::proxy::{COMMIT, Proxy, QUERY, Verdict};
use super::{Emulator, LONG, PROJECT, builder, cases, fresh_id, fresh_key, granted, ttl};
use crate::log::logging;

cases![
    e1_an_address_where_nobody_listens_is_named,
    e1_a_server_without_tls_is_unavailable,
    k4_no_error_quotes_the_server,
    k4_no_key_and_no_id_in_any_log,
];

/// Checks that an error of `connect` names what it tried.
fn names(error: &Error, address: &str) {
    assert_eq!(error.operation(), Operation::Connect, "{error}");
    let text = error.to_string();
    assert!(text.contains(address), "{text}");
    assert!(text.contains("projects/syncguard/databases/(default)"), "{text}");
}

async fn e1_an_address_where_nobody_listens_is_named(_: Emulator) {
    let address = format!("127.0.0.1:{}", free_port());
    let error = FirestoreBackend::builder().emulator(&address).connect(PROJECT).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    names(&error, &address);
    assert!(error.to_string().contains("refused"), "{error}");
}

async fn e1_a_server_without_tls_is_unavailable(emulator: Emulator) {
    let credentials =
        syncguard_firestore::gcloud_sdk::google_cloud_auth::credentials::anonymous::Builder::new();
    let builder = FirestoreBackend::builder()
        .endpoint(format!("https://{}", emulator.address))
        .credentials(credentials.build());
    let error = builder.connect(PROJECT).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    names(&error, &emulator.address);
}

/// The text of an error and of all its causes, in both forms.
fn whole(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(" {cause} {cause:?}");
        next = cause.source();
    }
    text
}

async fn k4_no_error_quotes_the_server(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    for code in (0..=16).map(Code::from_i32) {
        proxy.judge(move |_| Verdict::Refuse(code));
        for error in [
            backend.acquire(lease.key(), lease.id(), ttl(LONG)).await.unwrap_err(),
            backend.find(lease.id()).await.unwrap_err(),
            backend.extend_by_id(lease.id(), ttl(LONG)).await.unwrap_err(),
        ] {
            let text = whole(&error);
            for secret in ["quoted-key", lease.key().as_str(), lease.id().as_str()] {
                assert!(!text.contains(secret), "{code:?}: {text}");
            }
        }
    }
}

/// No crate logs them at any level: the SDK, tonic, h2, hyper and tower included.
async fn k4_no_key_and_no_id_in_any_log(emulator: Emulator) {
    logging("", async move |log| {
        let proxy = Proxy::before(&emulator.address);
        let backend = builder(&proxy.address()).notifications(true).connect(PROJECT).await.unwrap();
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        let locks = LockManager::new(backend.clone());
        let waiting = locks.lock(lease.key().clone()).wait(Duration::from_millis(300));
        waiting.acquire().await.unwrap_err();
        for method in [COMMIT, QUERY] {
            proxy.judge_next(method, [Verdict::Refuse(Code::Internal)]);
            backend.release_by_id(lease.id()).await.unwrap_err();
        }
        backend.extend(&lease, ttl(LONG)).await.unwrap().unwrap();
        assert!(backend.release_by_id(lease.id()).await.unwrap());
        let events = log.events();
        assert!(events.len() > 100, "{} events: nothing was listened to", events.len());
        for (level, event) in events {
            for secret in [lease.key().as_str(), lease.id().as_str()] {
                assert!(!event.contains(secret), "{level}: {event}");
            }
        }
    })
    .await;
}

//! What a leader publishes: its document, documents that cannot be read, and lost replies.

use serde_json::{Value as Json, json};
use syncguard_firestore::gcloud_sdk::tonic::Code;
use syncguard_firestore::{Backend, ErrorCode, Key, Lease, Publication};

use super::proxy::{COMMIT, Verdict};
use super::raw::fields;
use super::{Emulator, LONG, PROJECT, cases, fresh_id, fresh_key, granted, ttl};

cases![
    a_publication_is_one_document_that_a_withdrawal_deletes,
    e3_documents_of_leaders_are_in_the_configured_collection,
    e2_a_document_that_cannot_be_read_is_replaced,
    a_publication_whose_reply_is_lost_is_stored,
];

fn path(key: &Key) -> String {
    format!("leaders/{}", key.as_str())
}

fn publication(lease: &Lease) -> Publication {
    Publication::new(lease.fence(), "node", [0, 0xff]).unwrap()
}

fn document(lease: &Lease) -> Json {
    json!({
        "fence": lease.fence().to_string(), "candidate": "node", "value": [0, 255],
        "expiresAtMs": 4_000_000_000_000_u64, "key": lease.key().as_str(),
    })
}

async fn a_publication_is_one_document_that_a_withdrawal_deletes(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
    let path = path(lease.key());
    assert!(backend.publish(&lease, &publication(&lease), ttl(LONG)).await.unwrap());
    let mut stored = raw.get(&path).await.unwrap();
    let ends = stored["expiresAtMs"].as_u64().unwrap();
    assert!(ends.abs_diff(lease.expires_at().as_millis()) < 60_000, "{ends}");
    stored.insert("expiresAtMs".to_owned(), json!(4_000_000_000_000_u64));
    assert_eq!(stored, fields(document(&lease)));
    backend.withdraw(&lease).await.unwrap();
    assert_eq!(raw.get(&path).await, None);
}

async fn e3_documents_of_leaders_are_in_the_configured_collection(emulator: Emulator) {
    let raw = emulator.raw().await;
    let builder = emulator.builder().lock_collection("app locks");
    for (builder, collection) in
        [(builder.clone(), "app locks_leaders"), (builder.leader_collection("chiefs"), "chiefs")]
    {
        let backend = builder.connect(PROJECT).await.unwrap();
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        assert!(backend.publish(&lease, &publication(&lease), ttl(LONG)).await.unwrap());
        let path = format!("{collection}/{}", lease.key().as_str());
        assert!(raw.get(&path).await.is_some(), "{path}");
        assert_eq!(backend.published(lease.key()).await.unwrap(), Some(publication(&lease)));
    }
}

async fn e2_a_document_that_cannot_be_read_is_replaced(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    for (field, corrupt) in [
        ("fence", json!("many")),
        ("fence", json!("1000000000000000")),
        ("candidate", json!(7)),
        ("candidate", json!("a\0b")),
        ("value", json!("text")),
    ] {
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        let path = path(lease.key());
        let mut stored = document(&lease);
        stored[field] = corrupt;
        raw.put(&path, &stored).await;
        let error = backend.published(lease.key()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{field}: {error}");
        assert_eq!(error.key(), Some(lease.key().fingerprint()));
        assert!(backend.publish(&lease, &publication(&lease), ttl(LONG)).await.unwrap());
        assert_eq!(backend.published(lease.key()).await.unwrap(), Some(publication(&lease)));
        raw.put(&path, &stored).await;
        backend.withdraw(&lease).await.unwrap();
        assert_eq!(raw.get(&path).await, None);
        // A document without an expiry has expired.
        stored.as_object_mut().unwrap().remove("expiresAtMs");
        raw.put(&path, &stored).await;
        assert_eq!(backend.published(lease.key()).await.unwrap(), None);
    }
}

async fn a_publication_whose_reply_is_lost_is_stored(emulator: Emulator) {
    let (proxy, backend) = emulator.through_proxy().await;
    for code in [Code::Unavailable, Code::FailedPrecondition, Code::Aborted] {
        let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let stored = backend.publish(&lease, &publication(&lease), ttl(LONG)).await;
        // After a refusal, the document is read again, and the publication replaces itself.
        assert_eq!(stored.is_ok(), code != Code::Unavailable, "{stored:?}");
        assert_eq!(backend.published(lease.key()).await.unwrap(), Some(publication(&lease)));
        proxy.judge_next(COMMIT, [Verdict::Lose(code)]);
        let withdrawn = backend.withdraw(&lease).await;
        assert_eq!(withdrawn.is_ok(), code != Code::Unavailable, "{withdrawn:?}");
        assert_eq!(backend.published(lease.key()).await.unwrap(), None);
    }
}

//! Stored documents: foreign, corrupt and unusual ones, and the fields that we write.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syncguard_firestore::{Backend, ErrorCode, Key, LockId};

use super::raw::{Fields, Raw, fields};
use super::{Emulator, LONG, PROJECT, cases, fresh_id, fresh_key, granted, ttl};

cases![
    a3_fences_continue_from_a_counter_of_any_client,
    a3_fences_continue_from_a_dead_lock_ahead_of_the_counter,
    a6_an_exhausted_counter_grants_nothing,
    e2_a_corrupt_counter_grants_nothing,
    e2_a_live_lock_that_cannot_be_read_is_an_internal_error,
    f5_a_dead_lock_that_cannot_be_read_does_not_block,
    e3_documents_are_in_the_configured_collections,
    k3_keys_that_are_no_document_ids_are_hashed,
    r1_an_id_in_two_documents_means_the_live_one,
    r1_an_id_in_two_live_documents_changes_nothing,
    r3_extend_changes_only_the_expiry,
];

pub(super) fn lock_path(key: &Key) -> String {
    format!("locks/{}", key.as_str())
}

pub(super) fn fence_path(key: &Key) -> String {
    format!("fence_counters/fence:{}", key.as_str())
}

async fn a3_fences_continue_from_a_counter_of_any_client(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    for seven in [json!("000000000000007"), json!("7"), json!(7), json!(7.0)] {
        let key = fresh_key();
        raw.put(&fence_path(&key), &json!({ "fence": seven })).await;
        let lease = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
        assert_eq!(lease.fence().get(), 8);
        let counter = raw.get(&fence_path(&key)).await.unwrap();
        assert_eq!(counter["fence"], "000000000000008");
    }
}

async fn a3_fences_continue_from_a_dead_lock_ahead_of_the_counter(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    for (counter, granted_fence) in
        [(None, 58), (Some("3"), 58), (Some("57"), 58), (Some("60"), 61)]
    {
        let key = fresh_key();
        let dead = json!({
            "lockId": fresh_id().as_str(), "expiresAtMs": 1, "acquiredAtMs": 1, "key": key.as_str(), "fence": "000000000000057",
        });
        raw.put(&lock_path(&key), &dead).await;
        if let Some(counter) = counter {
            raw.put(&fence_path(&key), &json!({ "fence": counter })).await;
        }
        let lease = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
        assert_eq!(lease.fence().get(), granted_fence, "{counter:?}");
        let counter = raw.get(&fence_path(&key)).await.unwrap();
        assert_eq!(counter["fence"], lease.fence().to_string());
    }
}

/// Checks that an acquire fails with `Internal` and writes nothing.
async fn grants_nothing(emulator: &Emulator, counter: Json) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    let key = fresh_key();
    let counter = json!({ "fence": counter });
    raw.put(&fence_path(&key), &counter).await;
    let error = backend.acquire(&key, &fresh_id(), ttl(LONG)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Internal, "{counter}");
    assert_eq!(error.key(), Some(key.fingerprint()));
    assert_eq!(raw.get(&lock_path(&key)).await, None, "{counter}");
    assert_eq!(raw.get(&fence_path(&key)).await, Some(fields(counter)));
}

async fn a6_an_exhausted_counter_grants_nothing(emulator: Emulator) {
    for exhausted in
        [json!("900000000000000"), json!(900_000_000_000_000_u64), json!("999999999999999999")]
    {
        grants_nothing(&emulator, exhausted).await;
    }
    let (raw, backend, key) = (emulator.raw().await, emulator.backend().await, fresh_key());
    raw.put(&fence_path(&key), &json!({ "fence": "899999999999999" })).await;
    let last = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
    assert_eq!(last.fence().get(), 900_000_000_000_000);
}

async fn e2_a_corrupt_counter_grants_nothing(emulator: Emulator) {
    for corrupt in [json!("many"), json!(""), json!("-1"), json!(-1), json!("99999999999999999999")]
    {
        grants_nothing(&emulator, corrupt).await;
    }
}

/// Each field of a lock document except its expiry, and a value that no client writes.
fn unreadable() -> [(&'static str, Json); 5] {
    [
        ("lockId", json!("short")),
        ("acquiredAtMs", json!(-1)),
        ("key", json!("")),
        ("fence", json!("many")),
        ("fence", json!("1000000000000000")),
    ]
}

fn lock_of(key: &Key, id: &LockId, expires_at: u64) -> Json {
    json!({
        "lockId": id.as_str(), "expiresAtMs": expires_at, "acquiredAtMs": 1, "key": key.as_str(), "fence": "000000000000001",
    })
}

async fn e2_a_live_lock_that_cannot_be_read_is_an_internal_error(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    for (field, corrupt) in unreadable() {
        let (key, id) = (fresh_key(), fresh_id());
        let mut lock = lock_of(&key, &id, FAR);
        lock[field] = corrupt;
        raw.put(&lock_path(&key), &lock).await;
        let errors = [
            backend.acquire(&key, &id, ttl(LONG)).await.unwrap_err(),
            backend.get(&key).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), ErrorCode::Internal, "{field}: {error}");
        }
        if field != "lockId" {
            let error = backend.release_by_id(&id).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::Internal, "{field}: {error}");
        }
        assert_eq!(raw.get(&lock_path(&key)).await, Some(fields(lock)));
    }
}

/// SyncGuard for TypeScript overwrites such a document as well.
async fn f5_a_dead_lock_that_cannot_be_read_does_not_block(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    let ends = [("expiresAtMs", json!("soon")), ("expiresAtMs", json!(-1))];
    for (field, corrupt) in unreadable().into_iter().chain(ends) {
        for missing in [false, true] {
            let (key, id) = (fresh_key(), fresh_id());
            let mut lock = lock_of(&key, &id, 1);
            if missing {
                lock.as_object_mut().unwrap().remove(field);
            } else {
                lock[field] = corrupt.clone();
            }
            raw.put(&lock_path(&key), &lock).await;
            assert_eq!(backend.get(&key).await.unwrap(), None, "{field}");
            assert_eq!(backend.find(&id).await.unwrap(), None, "{field}");
            assert!(!backend.release_by_id(&id).await.unwrap(), "{field}");
            let lease = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
            assert!(lease.fence().get() <= 2, "{field}: {:?}", lease.fence());
            assert!(backend.release(&lease).await.unwrap());
        }
    }
}

async fn e3_documents_are_in_the_configured_collections(emulator: Emulator) {
    let builder = emulator.builder().lock_collection("app locks").fence_collection("app.fences");
    let (raw, backend) = (emulator.raw().await, builder.connect(PROJECT).await.unwrap());
    let key = fresh_key();
    let lease = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
    assert!(raw.get(&format!("app locks/{}", key.as_str())).await.is_some());
    assert!(raw.get(&format!("app.fences/fence:{}", key.as_str())).await.is_some());
    assert_eq!(raw.get(&lock_path(&key)).await, None);
    assert!(backend.find(lease.id()).await.unwrap().is_some());
    assert!(backend.release_by_id(lease.id()).await.unwrap());
}

async fn k3_keys_that_are_no_document_ids_are_hashed(emulator: Emulator) {
    // The keys are the same in every run, so each run needs collections of its own.
    let (locks, fences) =
        (format!("l{}", fresh_id().as_str()), format!("f{}", fresh_id().as_str()));
    let builder = emulator.builder().lock_collection(&locks).fence_collection(&fences);
    let (raw, backend) = (emulator.raw().await, builder.connect(PROJECT).await.unwrap());
    for key in
        [".", "..", "__x__", "__id7__", "____", "/", "a/b", "a/b/c", "a//b", "/lead", "trail/"]
    {
        let (key, id) = (Key::new(key).unwrap(), fresh_id());
        let lease = granted(backend.acquire(&key, &id, ttl(LONG)).await);
        assert_eq!(backend.get(&key).await.unwrap().unwrap().key(), &key);
        assert_eq!(backend.find(&id).await.unwrap().unwrap().key(), &key);
        assert!(backend.extend(&lease, ttl(LONG)).await.unwrap().is_some());
        assert!(backend.extend_by_id(&id, ttl(LONG)).await.unwrap().is_some());
        assert!(backend.release_by_id(&id).await.unwrap());
    }
    // The first 16 bytes of the SHA-256 of `a/b`.
    let key = Key::new("a/b").unwrap();
    granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
    let lock = raw.get(&format!("{locks}/wUzdwDP2S53qgOpnXPKAoA")).await;
    assert_eq!(lock.unwrap()["key"], "a/b");
    let fence = raw.get(&format!("{fences}/fence:wUzdwDP2S53qgOpnXPKAoA")).await;
    assert_eq!(fence.unwrap()["fence"], "000000000000002");
}

/// Stores two lock documents with the same id that expire at these times.
async fn twins(raw: &Raw, id: &LockId, ends: [u64; 2]) -> BTreeMap<String, Fields> {
    let mut twins = BTreeMap::new();
    for expires_at in ends {
        let key = fresh_key();
        let lock = json!({
            "lockId": id.as_str(), "expiresAtMs": expires_at, "acquiredAtMs": 1, "key": key.as_str(), "fence": "000000000000001",
        });
        raw.put(&lock_path(&key), &lock).await;
        twins.insert(lock_path(&key), fields(lock));
    }
    twins
}

const FAR: u64 = 4_000_000_000_000;

async fn r1_an_id_in_two_documents_means_the_live_one(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    // The order in which the query finds them must not matter.
    for ends in [[1, FAR], [FAR, 1], [1, FAR], [FAR, 1]] {
        let id = fresh_id();
        let twins = twins(&raw, &id, ends).await;
        assert!(backend.find(&id).await.unwrap().is_some());
        assert!(backend.extend_by_id(&id, ttl(LONG)).await.unwrap().is_some());
        assert!(backend.release_by_id(&id).await.unwrap());
        assert!(!backend.release_by_id(&id).await.unwrap());
        for (path, twin) in twins {
            let expected = (twin["expiresAtMs"] == 1).then_some(twin);
            assert_eq!(raw.get(&path).await, expected);
        }
    }
}

async fn r1_an_id_in_two_live_documents_changes_nothing(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    let id = fresh_id();
    let twins = twins(&raw, &id, [FAR, FAR]).await;
    assert_eq!(backend.find(&id).await.unwrap(), None);
    assert_eq!(backend.extend_by_id(&id, ttl(LONG)).await.unwrap(), None);
    assert!(!backend.release_by_id(&id).await.unwrap());
    for (path, twin) in twins {
        assert_eq!(raw.get(&path).await, Some(twin));
        raw.delete(&path).await;
    }
}

async fn r3_extend_changes_only_the_expiry(emulator: Emulator) {
    let (raw, backend) = (emulator.raw().await, emulator.backend().await);
    let key = fresh_key();
    let lease = granted(backend.acquire(&key, &fresh_id(), ttl(LONG)).await);
    let mut stored = raw.get(&lock_path(&key)).await.unwrap();
    let counter = raw.get(&fence_path(&key)).await;
    let extended = backend.extend(&lease, ttl(2 * LONG)).await.unwrap().unwrap();
    stored.insert("expiresAtMs".to_owned(), json!(extended.expires_at().as_millis()));
    assert_eq!(raw.get(&lock_path(&key)).await, Some(stored));
    assert_eq!(raw.get(&fence_path(&key)).await, counter);
}

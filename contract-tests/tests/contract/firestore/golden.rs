//! Records of SyncGuard for TypeScript are read, and ours are equal to them.

use std::time::Duration;

use serde_json::{Value as Json, json};
use syncguard_firestore::{Acquired, Backend, Key, LockId, Timestamp};

use super::raw::fields;
use super::stored::{fence_path, lock_path};
use super::{Emulator, LONG, PROJECT, cases, fresh_id, granted, ttl};

cases![golden_records_are_read, golden_records_are_written];

/// Returns the records that SyncGuard for TypeScript left in Firestore.
fn golden() -> Vec<Json> {
    let all: Json = serde_json::from_str(include_str!("../../golden/records.json")).unwrap();
    all["firestore"].as_array().unwrap().clone()
}

/// A golden record under a key of its own, because trials run at the same time.
struct Golden {
    key: Key,
    id: LockId,
    lock: Json,
    counter: Json,
}

impl Golden {
    fn records() -> impl Iterator<Item = Self> {
        golden().into_iter().map(|record| {
            let suffix = fresh_id();
            // The record contains the key as the caller wrote it. Documents are named by its NFC
            // form.
            let raw_key = format!("{}{}", record["key"].as_str().unwrap(), suffix.as_str());
            let (mut lock, mut counter) = (
                record["lock_document"]["fields"].clone(),
                record["fence_document"]["fields"].clone(),
            );
            lock["key"] = json!(raw_key);
            lock["lockId"] = json!(suffix.as_str());
            counter["keyDebug"] = json!(raw_key);
            Self { key: Key::new(&raw_key).unwrap(), id: suffix, lock, counter }
        })
    }

    fn millis(&self, field: &str) -> u64 {
        self.lock[field].as_u64().unwrap()
    }
}

async fn golden_records_are_read(emulator: Emulator) {
    let raw = emulator.raw().await;
    for golden in Golden::records() {
        let acquired_at = golden.millis("acquiredAtMs");
        let builder = emulator.builder().clock(move || Timestamp::from_millis(acquired_at + 1));
        let backend = builder.connect(PROJECT).await.unwrap();
        raw.put(&lock_path(&golden.key), &golden.lock).await;
        raw.put(&fence_path(&golden.key), &golden.counter).await;

        let record = backend.get(&golden.key).await.unwrap().unwrap();
        assert_eq!(record.id(), &golden.id);
        assert_eq!(record.key(), &golden.key);
        assert_eq!(record.fence().get(), 2);
        assert_eq!(record.acquired_at().as_millis(), acquired_at);
        assert_eq!(record.expires_at().as_millis(), golden.millis("expiresAtMs"));
        assert_eq!(backend.find(&golden.id).await.unwrap(), Some(record));
        let acquired = backend.acquire(&golden.key, &fresh_id(), ttl(LONG)).await.unwrap();
        // 600 s minus the 1 ms that passed, plus the tolerance of 1 s.
        let remaining = Some(Duration::from_millis(600_999));
        assert_eq!(acquired, Acquired::Held { remaining });

        assert!(backend.release_by_id(&golden.id).await.unwrap());
        let next = granted(backend.acquire(&golden.key, &fresh_id(), ttl(LONG)).await);
        assert_eq!(next.fence().get(), 3);
    }
}

async fn golden_records_are_written(emulator: Emulator) {
    let raw = emulator.raw().await;
    for mut golden in Golden::records() {
        let acquired_at = golden.millis("acquiredAtMs");
        let builder = emulator.builder().clock(move || Timestamp::from_millis(acquired_at));
        let backend = builder.connect(PROJECT).await.unwrap();
        // Two grants, because the fence in the record is 2.
        let first = granted(backend.acquire(&golden.key, &fresh_id(), ttl(LONG)).await);
        assert!(backend.release(&first).await.unwrap());
        granted(backend.acquire(&golden.key, &golden.id, ttl(LONG)).await);
        // We know only the NFC form of the key.
        golden.lock["key"] = json!(golden.key.as_str());
        golden.counter["keyDebug"] = json!(golden.key.as_str());
        assert_eq!(raw.get(&lock_path(&golden.key)).await, Some(fields(golden.lock)));
        assert_eq!(raw.get(&fence_path(&golden.key)).await, Some(fields(golden.counter)));
    }
}

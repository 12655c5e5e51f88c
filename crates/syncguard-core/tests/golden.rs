//! K3: names, fingerprints and fences are equal to those of SyncGuard for TypeScript.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use syncguard_core::{Fence, Fingerprint, Key, KeySpace, LockId};

fn vectors(section: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("golden/vectors.json")).unwrap();
    let vectors = all[section].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

#[test]
fn k3_names_equal_the_golden_vectors() {
    let id: LockId = "AAECAwQFBgcICQoLDA0ODw".parse().unwrap();
    for vector in vectors("storage_keys") {
        let text = |field: &str| vector[field].as_str().unwrap();
        let size = |field: &str| usize::try_from(vector[field].as_u64().unwrap()).unwrap();
        let names = KeySpace::new(text("prefix"), size("limit"), size("reserve"));
        if vector["error"].is_string() {
            assert_eq!(vector["error"], "InvalidArgument");
            assert!(names.is_err(), "{vector}");
            continue;
        }
        let names = names.unwrap_or_else(|error| panic!("{error}: {vector}"));
        let base = names.base_key(&Key::new(text("key")).unwrap());
        assert_eq!(base, text("base_key"));
        assert_eq!(names.fence_key(&base), text("fence_key"));
        // Only Redis has an index by id, so the other vectors have no such name.
        if let Some(id_key) = vector["id_key"].as_str() {
            assert_eq!(names.id_key(&id), id_key);
        }
    }
}

#[test]
fn k4_fingerprints_equal_the_golden_vectors() {
    for vector in vectors("fingerprints") {
        let fingerprint = Fingerprint::of(vector["text"].as_str().unwrap());
        assert_eq!(fingerprint.to_string(), vector["fingerprint"].as_str().unwrap());
    }
}

#[test]
fn a3_fences_equal_the_golden_vectors() {
    for vector in vectors("fences") {
        let fence = Fence::new(vector["value"].as_u64().unwrap()).unwrap();
        assert_eq!(fence.to_string(), vector["text"].as_str().unwrap());
    }
}

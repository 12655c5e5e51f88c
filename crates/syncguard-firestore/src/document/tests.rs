use syncguard_core::ErrorCode;

use super::*;

const ID: &str = "AAECAwQFBgcICQoLDA0ODw";

fn text(text: &str) -> ValueType {
    ValueType::StringValue(text.to_owned())
}

fn document(fields: &[(&str, ValueType)]) -> Document {
    let value = |value: &ValueType| Value { value_type: Some(value.clone()) };
    Document {
        name: "projects/p/databases/d/documents/locks/resource:123".to_owned(),
        fields: fields.iter().map(|(field, v)| ((*field).to_owned(), value(v))).collect(),
        create_time: None,
        update_time: Some(Revision { seconds: 17, nanos: 5_000 }),
    }
}

fn golden() -> Vec<(&'static str, ValueType)> {
    vec![
        ("lockId", text(ID)),
        ("expiresAtMs", ValueType::IntegerValue(1_795_451_840_172)),
        ("acquiredAtMs", ValueType::IntegerValue(1_795_451_240_172)),
        ("key", text("cafe\u{301}")),
        ("fence", text("000000000000002")),
    ]
}

fn names() -> Names {
    Names::new("p", "(default)", "locks", "fence_counters").unwrap()
}

#[test]
fn k3_documents_are_named_by_the_key() {
    let pair = names().of(&Key::new("cafe\u{301}").unwrap());
    let root = "projects/p/databases/(default)/documents";
    assert_eq!(pair.lock, format!("{root}/locks/caf\u{e9}"));
    assert_eq!(pair.fence, format!("{root}/fence_counters/fence:caf\u{e9}"));
}

#[test]
fn k3_keys_that_are_no_legal_names_are_hashed() {
    let base = |key: &str| {
        let pair = names().of(&Key::new(key).unwrap());
        let base = pair.lock.rsplit_once("/locks/").unwrap().1.to_owned();
        assert!(pair.fence.ends_with(&format!("/fence:{base}")));
        base
    };
    for key in ["a/b", "/", ".", "..", "____", "__x__", "__id7__", "trail/"] {
        let hashed = base(key);
        assert!(hashed.parse::<LockId>().is_ok(), "{key}: {hashed}");
        assert!(is_legal_name(&hashed));
    }
    for key in ["___", "__x", "x__", "...", "a.b", "`[x]` ~*", "\u{1f512}"] {
        assert_eq!(base(key), key);
    }
    assert_ne!(base("a/b"), base("a/c"));
}

#[test]
fn k3_names_follow_the_golden_vectors() {
    let all: serde_json::Value =
        serde_json::from_str(include_str!("../../../syncguard-core/tests/golden/vectors.json"))
            .unwrap();
    let mut seen = 0;
    for vector in all["storage_keys"].as_array().unwrap() {
        let of = |field: &str| vector[field].as_str().unwrap();
        if vector["backend"] != "firestore" || !is_legal_name(of("base_key")) {
            continue;
        }
        let pair = names().of(&Key::new(of("key")).unwrap());
        assert!(pair.lock.ends_with(&format!("/locks/{}", of("base_key"))));
        assert!(pair.fence.ends_with(&format!("/fence_counters/{}", of("fence_key"))));
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_lock_of_another_client_is_read() {
    let lock = StoredLock::read(&document(&golden())).unwrap();
    let lease = lock.lease();
    assert_eq!(lease.key().as_str(), "caf\u{e9}");
    assert_eq!(lease.id().as_str(), ID);
    assert_eq!(lease.fence().get(), 2);
    assert_eq!(lease.expires_at().as_millis(), 1_795_451_840_172);
    assert_eq!(lock.record.acquired_at().as_millis(), 1_795_451_240_172);
}

#[test]
fn times_may_be_doubles() {
    let mut fields = golden();
    fields[1].1 = ValueType::DoubleValue(9_007_199_254_740_994.0);
    fields[2].1 = ValueType::DoubleValue(1_795_451_240_172.75);
    let lock = StoredLock::read(&document(&fields)).unwrap();
    assert_eq!(lock.record.expires_at().as_millis(), 9_007_199_254_740_994);
    assert_eq!(lock.record.acquired_at().as_millis(), 1_795_451_240_172);
}

#[test]
fn e2_a_corrupt_lock_is_an_internal_error() {
    let bad = [
        ("lockId", text("too short")),
        ("lockId", ValueType::IntegerValue(1)),
        ("expiresAtMs", ValueType::DoubleValue(f64::NAN)),
        ("expiresAtMs", ValueType::DoubleValue(f64::INFINITY)),
        ("expiresAtMs", ValueType::IntegerValue(-1)),
        ("acquiredAtMs", ValueType::BooleanValue(true)),
        ("key", text("")),
        ("fence", text("not a number")),
        ("fence", text("1000000000000000")),
    ];
    for (field, value) in bad {
        let mut fields = golden();
        fields.retain(|(name, _)| *name != field);
        let missing = document(&fields);
        fields.push((field, value));
        for document in [missing, document(&fields)] {
            let error = StoredLock::read(&document).err().unwrap();
            assert_eq!(error.code(), ErrorCode::Internal, "{field}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}

#[test]
fn a3_the_counter_is_any_text_or_number_that_is_whole() {
    for (value, fence) in [
        (text("000000000000007"), 7),
        (text("7"), 7),
        (text("1000000000000000"), 1_000_000_000_000_000),
        (ValueType::IntegerValue(7), 7),
        (ValueType::DoubleValue(7.0), 7),
    ] {
        assert_eq!(last_fence(&document(&[("fence", value)])).unwrap(), fence);
    }
}

#[test]
fn e2_any_other_counter_is_an_internal_error() {
    for value in [
        text(""),
        text("x"),
        text("-7"),
        text("+7"),
        text("99999999999999999999"),
        ValueType::IntegerValue(-7),
        ValueType::NullValue(0),
    ] {
        let error = last_fence(&document(&[("fence", value)])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal);
    }
    assert!(last_fence(&document(&[])).is_err());
}

#[test]
fn what_is_written_is_what_is_read() {
    let record = StoredLock::read(&document(&golden())).unwrap().record;
    let write = put_lock("n".to_owned(), &record, None);
    assert_eq!(write.current_document.unwrap().condition_type, Some(ConditionType::Exists(false)));
    let Some(write::Operation::Update(written)) = write.operation else { panic!("no update") };
    let mut fields = golden();
    fields[3].1 = text("caf\u{e9}");
    assert_eq!(written.fields, document(&fields).fields);
}

#[test]
fn a_revision_survives_its_text() {
    let revision = Revision { seconds: 1_795_451_240, nanos: 1_234_000 };
    let text = revision_to_text(revision);
    assert_eq!(text, "1795451240.001234000");
    assert_eq!(revision_from_text(&text), Some(revision));
    for bad in ["", "17", "17.", ".5000", "a.b", "17.5000.5000"] {
        assert_eq!(revision_from_text(bad), None, "{bad}");
    }
    // Firestore refuses whatever is not a whole microsecond of a second.
    for bad in ["17.5", "17.000001001", "17.-1000", "17.1000000000"] {
        assert_eq!(revision_from_text(bad), None, "{bad}");
    }
}

use syncguard_core::{ErrorCode, Publication};

use super::publication::{has_expired, outranks, put_publication};
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

/// Reads a lock document while its lock is live.
fn read(document: &Document) -> Result<StoredLock> {
    let now = Timestamp::from_millis(1_795_451_240_172);
    StoredLock::read_live(document, now).map(|lock| lock.expect("the lock is dead"))
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

#[test]
fn a_lock_of_another_client_is_read() {
    let lock = read(&document(&golden())).unwrap();
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
    let lock = read(&document(&fields)).unwrap();
    assert_eq!(lock.record.expires_at().as_millis(), 9_007_199_254_740_994);
    assert_eq!(lock.record.acquired_at().as_millis(), 1_795_451_240_172);
}

/// Each field of a lock document, and values of it that no client writes.
fn unreadable() -> Vec<(&'static str, ValueType)> {
    vec![
        ("lockId", text("too short")),
        ("lockId", ValueType::IntegerValue(1)),
        ("acquiredAtMs", ValueType::BooleanValue(true)),
        ("key", text("")),
        ("fence", text("not a number")),
        ("fence", text("1000000000000000")),
    ]
}

/// The golden document without this field, and with this value in its place.
fn without_and_with(field: &'static str, value: ValueType) -> [Vec<(&'static str, ValueType)>; 2] {
    let mut without = golden();
    without.retain(|(name, _)| *name != field);
    let mut with = without.clone();
    with.push((field, value));
    [without, with]
}

#[test]
fn e2_a_live_lock_that_cannot_be_read_is_an_internal_error() {
    for (field, value) in unreadable() {
        for fields in without_and_with(field, value) {
            let error = read(&document(&fields)).err().unwrap();
            assert_eq!(error.code(), ErrorCode::Internal, "{field}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}

#[test]
fn f5_a_dead_lock_need_not_be_readable() {
    let end = Timestamp::from_millis(1_795_451_840_172 + 1_000);
    for (field, value) in unreadable() {
        for fields in without_and_with(field, value) {
            assert!(StoredLock::read_live(&document(&fields), end).unwrap().is_none(), "{field}");
        }
    }
}

/// SyncGuard for TypeScript compares the value with a number, which is false if it is none.
#[test]
fn f5_an_expiry_that_is_no_number_is_dead() {
    let now = Timestamp::from_millis(1_795_451_240_172);
    for value in [
        text("soon"),
        text(""),
        ValueType::NullValue(0),
        ValueType::BooleanValue(true),
        ValueType::IntegerValue(-1),
        ValueType::DoubleValue(f64::NAN),
        ValueType::DoubleValue(f64::NEG_INFINITY),
    ] {
        for fields in without_and_with("expiresAtMs", value.clone()) {
            let lock = StoredLock::read_live(&document(&fields), now).unwrap();
            assert!(lock.is_none(), "{value:?}");
        }
    }
    for value in [text("1795451840172"), ValueType::DoubleValue(f64::INFINITY)] {
        let [_, fields] = without_and_with("expiresAtMs", value);
        assert!(StoredLock::read_live(&document(&fields), now).unwrap().is_some());
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
    let record = read(&document(&golden())).unwrap().record;
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

#[test]
fn a_publication_is_read_as_it_was_written() {
    let publication = Publication::new(Fence::new(7).unwrap(), "node", [0, 0xff]).unwrap();
    let (key, ends) = (Key::new("a/b").unwrap(), Timestamp::from_millis(5_000));
    let write = put_publication("leaders/x".to_owned(), &key, &publication, ends, None);
    let Some(write::Operation::Update(document)) = write.operation else { panic!("no update") };
    assert_eq!(publication::read(&document).unwrap(), publication);
    assert!(!has_expired(&document, Timestamp::from_millis(5_999)));
    assert!(has_expired(&document, Timestamp::from_millis(6_000)));
    assert!(outranks(&document, Fence::new(6).unwrap()));
    assert!(!outranks(&document, Fence::new(7).unwrap()));
}

#[test]
fn e2_a_publication_that_cannot_be_read_is_internal_and_outranks_nothing() {
    let good = || {
        vec![
            ("fence", text("000000000000007")),
            ("candidate", text("node")),
            ("value", ValueType::BytesValue(vec![1])),
        ]
    };
    assert!(publication::read(&document(&good())).is_ok());
    for (index, bad) in [
        (0, text("many")),
        (0, text("1000000000000000")),
        (1, text("a\0b")),
        (1, ValueType::IntegerValue(1)),
        (2, text("value")),
        (2, ValueType::BytesValue(vec![0; 4_097])),
    ] {
        let mut fields = good();
        fields[index].1 = bad;
        let error = publication::read(&document(&fields)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal, "{index}");
        if index == 0 {
            assert!(!outranks(&document(&fields), Fence::new(1).unwrap()));
        }
        fields.remove(index);
        assert!(publication::read(&document(&fields)).is_err());
    }
}

fn any_value() -> impl proptest::strategy::Strategy<Value = ValueType> {
    use proptest::prelude::*;
    prop_oneof![
        "\\PC{0,30}".prop_map(ValueType::StringValue),
        "[0-9]{0,17}".prop_map(ValueType::StringValue),
        "[A-Za-z0-9_-]{22}".prop_map(ValueType::StringValue),
        any::<i64>().prop_map(ValueType::IntegerValue),
        any::<f64>().prop_map(ValueType::DoubleValue),
        any::<bool>().prop_map(ValueType::BooleanValue),
        any::<Vec<u8>>().prop_map(ValueType::BytesValue),
    ]
}

proptest::proptest! {
    /// What is stored may be anything (E2).
    #[test]
    fn e2_no_stored_fields_make_a_read_panic(values in proptest::array::uniform5(any_value()), now: u64) {
        let fields = golden().into_iter().map(|(field, _)| field).zip(values).collect::<Vec<_>>();
        let document = document(&fields);
        let _ = StoredLock::read_live(&document, Timestamp::from_millis(now));
        let _ = (stored_fence(&document), last_fence(&document));
    }

    #[test]
    fn e2_a_revision_is_read_as_it_was_written_or_refused(text in "(-?[0-9]{0,20}[.:, ]?[0-9]{0,12}|\\PC{0,20})") {
        let _ = revision_from_text(&text);
    }
}

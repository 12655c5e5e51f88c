//! The stored form of a lease: JSON, written by the scripts, read here.

use serde::{Deserialize, Deserializer};
use syncguard_core::{Fence, Key, LockId, LockRecord, Timestamp};

/// The record of an acquisition up to its fence: the scripts append the rest, and recognise by it
/// what they wrote.
///
/// Slashes and DEL are escaped since the other clients do so: then their records, too, are
/// recognised without decoding.
pub(crate) fn head(key: &Key, id: &LockId) -> String {
    let key = serde_json::Value::from(key.as_str())
        .to_string()
        .replace('/', "\\/")
        .replace('\x7f', "\\u007f");
    format!("{{\"key\":{key},\"lockId\":\"{}\",\"fence\":\"", id.as_str())
}

/// Reads only when a record ends, which also one with other fields missing may say.
pub(crate) fn expiry(json: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ends {
        #[serde(deserialize_with = "millis")]
        expires_at_ms: Timestamp,
    }

    serde_json::from_slice(json).ok().map(|Ends { expires_at_ms }| expires_at_ms)
}

/// Reads a record in any writing: fields in any order, any form of numbers, unknown fields.
pub(crate) fn parse(json: &[u8]) -> serde_json::Result<LockRecord> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stored {
        key: Key,
        lock_id: LockId,
        fence: Fence,
        #[serde(deserialize_with = "millis")]
        acquired_at_ms: Timestamp,
        #[serde(deserialize_with = "millis")]
        expires_at_ms: Timestamp,
    }

    let stored: Stored = serde_json::from_slice(json)?;
    Ok(LockRecord::new(
        stored.key,
        stored.lock_id,
        stored.fence,
        stored.acquired_at_ms,
        stored.expires_at_ms,
    ))
}

/// Other clients write a time above 10^14 in exponent form, so any number is a time.
fn millis<'de, D: Deserializer<'de>>(json: D) -> Result<Timestamp, D::Error> {
    let number = f64::deserialize(json)?;
    if (0.0..1e17).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked; a fraction of a millisecond is dropped"
        )]
        Ok(Timestamp::from_millis(number as u64))
    } else {
        Err(serde::de::Error::custom("a time is out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ESnTeidab-RJPmWy0DBYhQ";

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn the_head_is_what_other_clients_write() {
        let of = |text| head(&key(text), &ID.parse().unwrap());
        let tail = format!("\",\"lockId\":\"{ID}\",\"fence\":\"");
        assert_eq!(
            of("quote\"and\\slash/é🔒"),
            format!(r#"{{"key":"quote\"and\\slash\/é🔒{tail}"#)
        );
        assert_eq!(
            of("\u{1}\u{8}\t\n\u{c}\r\u{1f}\u{7f}"),
            format!(r#"{{"key":"\u0001\b\t\n\f\r\u001f\u007f{tail}"#)
        );
    }

    #[test]
    fn any_writing_is_read() {
        let json = format!(
            r#"{{ "fence":"000000000000002", "note":{{"a":[1]}}, "expiresAtMs":1.0179544897956e+14,
            "acquiredAtMs":1795451239720, "lockId":"{ID}", "key":"a\/b" }}"#
        );
        let record = parse(json.as_bytes()).unwrap();
        assert_eq!(record.key(), &key("a/b"));
        assert_eq!(record.id().as_str(), ID);
        assert_eq!(record.fence().get(), 2);
        assert_eq!(record.acquired_at().as_millis(), 1_795_451_239_720);
        assert_eq!(record.expires_at().as_millis(), 101_795_448_979_560);
    }

    #[test]
    fn e2_what_is_no_record_is_refused() {
        let good = format!(
            r#"{{"key":"k","lockId":"{ID}","fence":"000000000000002","acquiredAtMs":1,"expiresAtMs":2}}"#
        );
        assert!(parse(good.as_bytes()).is_ok());
        for (from, to) in [
            ("\"key\":\"k\",", ""),
            ("\"k\"", "7"),
            ("\"k\"", "\"\""),
            (ID, "short"),
            ("000000000000002", "2"),
            ("\"000000000000002\"", "2"),
            ("\"expiresAtMs\":2", "\"expiresAtMs\":\"2\""),
            ("\"expiresAtMs\":2", "\"expiresAtMs\":-2"),
            ("\"expiresAtMs\":2", "\"expiresAtMs\":1e300"),
            ("\"expiresAtMs\":2", "\"expiresAtMs\":null"),
            ("}", ""),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"[]").is_err());
        assert!(parse(b"\xff").is_err());
    }

    proptest::proptest! {
        /// What is stored may be anything (E2).
        #[test]
        fn e2_no_stored_bytes_make_a_read_panic(bytes: Vec<u8>) {
            let _ = (parse(&bytes), expiry(&bytes));
        }

        #[test]
        fn e2_no_stored_fields_make_a_read_panic(
            text in "\\PC{0,30}",
            id in "[A-Za-z0-9_-]{20,23}",
            fence in "(\"[0-9]{0,17}\"|[0-9]{0,17}|null)",
            times: [f64; 2],
        ) {
            let [acquired, expires] = times;
            let json = format!(
                "{{\"key\":{},\"lockId\":\"{id}\",\"fence\":{fence},\"acquiredAtMs\":{acquired},\
                 \"expiresAtMs\":{expires}}}",
                serde_json::Value::from(text.as_str()),
            );
            if let Ok(record) = parse(json.as_bytes()) {
                proptest::prop_assert_eq!(record.id().as_str(), id);
                proptest::prop_assert!(record.fence() <= Fence::MAX);
            }
        }
    }
}

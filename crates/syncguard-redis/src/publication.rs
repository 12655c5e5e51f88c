//! What a leader publishes: the calls that store it, and its stored form.

use fred::bytes_utils::Str;
use fred::types::Value;
use syncguard_core::{Fence, Operation, Publication, Result, Ttl};

use crate::error::unreadable;
use crate::groups::Call;
use crate::operations::{PUBLISH, PUBLISHED, Script, WITHDRAW};

/// Answers with one, or with nil if a publication with a higher fence is stored.
pub(crate) fn publish(name: String, publication: &Publication, ttl: Ttl) -> Call {
    let args = vec![
        publication.fence().to_string().into(),
        publication.candidate().into(),
        publication.value().into(),
        ttl.as_millis().to_string().into(),
    ];
    call(Operation::Publish, &PUBLISH, name, args)
}

pub(crate) fn withdraw(name: String, fence: Fence) -> Call {
    call(Operation::Withdraw, &WITHDRAW, name, vec![fence.to_string().into()])
}

/// The answer is for [`parse`].
pub(crate) fn published(name: String) -> Call {
    call(Operation::Published, &PUBLISHED, name, Vec::new())
}

fn call(operation: Operation, script: &'static Script, name: String, args: Vec<Value>) -> Call {
    Call { operation, script, keys: vec![Str::from(name)], args }
}

/// Reads the fields of a publication. None of them is there if nothing is stored.
pub(crate) fn parse(answer: &Value) -> Result<Option<Publication>> {
    let unreadable = || unreadable(Operation::Published);
    let Value::Array(fields) = answer else {
        return Err(unreadable());
    };
    if fields.iter().all(Value::is_null) {
        return Ok(None);
    }
    let [fence, candidate, value] = fields.as_slice() else {
        return Err(unreadable());
    };
    let fence = fence.as_str().and_then(|fence| fence.parse::<Fence>().ok());
    let fields = fence.zip(candidate.as_str()).zip(value.as_bytes());
    let ((fence, candidate), value) = fields.ok_or_else(unreadable)?;
    let publication = Publication::new(fence, candidate, value);
    publication.map(Some).map_err(|invalid| unreadable().with_source(invalid))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use syncguard_core::ErrorCode;

    use super::*;

    fn fields(fields: [Value; 3]) -> Value {
        Value::Array(fields.into())
    }

    #[test]
    fn e2_what_is_no_publication_is_refused() {
        let good = || ["000000000000007".into(), "node".into(), Value::from(&b"\xff\0"[..])];
        let read = parse(&fields(good())).unwrap().unwrap();
        assert_eq!(
            (read.fence().get(), read.candidate(), read.value()),
            (7, "node", &b"\xff\0"[..])
        );
        assert_eq!(parse(&fields([Value::Null, Value::Null, Value::Null])).unwrap(), None);
        let long = "x".repeat(257);
        for (index, bad) in [
            (0, Value::Null),
            (0, "7".into()),
            (1, Value::Null),
            (1, Value::from(&b"\xff"[..])),
            (1, "a\0b".into()),
            (1, long.as_str().into()),
            (2, Value::Null),
            (2, Value::from(&[0; 4_097][..])),
        ] {
            let mut stored = good();
            stored[index] = bad;
            let error = parse(&fields(stored)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Internal, "{index}");
        }
        assert!(parse(&Value::Null).is_err() && parse(&Value::Array(vec!["7".into()])).is_err());
    }

    fn any_field() -> impl Strategy<Value = Value> {
        let bytes =
            prop_oneof![any::<Vec<u8>>(), "[0-9]{15}|\\PC{0,300}".prop_map(String::into_bytes),];
        proptest::option::of(bytes).prop_map(|bytes| bytes.map_or(Value::Null, |b| b[..].into()))
    }

    proptest! {
        #[test]
        fn e2_no_stored_fields_make_a_read_panic(stored in proptest::array::uniform3(any_field())) {
            let all_null = stored.iter().all(Value::is_null);
            if let Ok(read) = parse(&fields(stored)) {
                prop_assert_eq!(read.is_none(), all_null);
            }
        }
    }
}

//! What the answers of the scripts mean.

use fred::types::Value;
use syncguard_core::{
    Fence, Key, Lease, LockId, LockRecord, Operation, Result, Timestamp, is_live,
};

use crate::error::unreadable;
use crate::record;

/// The lease of a record that a script has written.
pub(super) fn granted(
    answer: &Value,
    key: &Key,
    id: &LockId,
    operation: Operation,
) -> Result<Lease> {
    let lease = record(answer, operation).and_then(|record| {
        let fence = Fence::granted(record.fence().get())?;
        Ok(Lease::new(key.clone(), id.clone(), fence, record.expires_at()))
    });
    lease.map_err(|error| error.with_key(key))
}

/// The lease of a record that a script has renewed, if there was one to renew.
pub(super) fn extended(answer: Result<Value>) -> Result<Option<Lease>> {
    let answer = answer?;
    if answer.is_null() {
        return Ok(None);
    }
    let record = record(&answer, Operation::Extend)?;
    Ok(Some(Lease::new(
        record.key().clone(),
        record.id().clone(),
        record.fence(),
        record.expires_at(),
    )))
}

pub(super) fn released(answer: Result<Value>) -> Result<bool> {
    match answer? {
        Value::Null => Ok(false),
        Value::Integer(1) => Ok(true),
        _ => Err(unreadable(Operation::Release)),
    }
}

/// The record of a look-up, if it is live at the server's time, which came with it.
pub(super) fn live(answer: &Value, operation: Operation) -> Result<Option<LockRecord>> {
    let (json, seconds, micros) = match answer {
        Value::Null => return Ok(None),
        Value::Array(parts) => match parts.as_slice() {
            [json, seconds, micros] => (json, seconds.as_u64(), micros.as_u64()),
            _ => return Err(unreadable(operation)),
        },
        _ => return Err(unreadable(operation)),
    };
    let (Some(seconds), Some(micros)) = (seconds, micros) else {
        return Err(unreadable(operation));
    };
    let now = Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
    // Only a live record must be readable.
    let ends = json.as_bytes().and_then(record::expiry);
    if ends.is_some_and(|ends| !is_live(ends, now)) {
        return Ok(None);
    }
    record(json, operation).map(Some)
}

fn record(json: &Value, operation: Operation) -> Result<LockRecord> {
    let json = json.as_bytes().ok_or_else(|| unreadable(operation))?;
    record::parse(json).map_err(|error| unreadable(operation).with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2_a_time_that_no_server_has_is_no_panic() {
        let answer = [Value::from("{}"), Value::Integer(i64::MAX), Value::Integer(i64::MAX)];
        assert!(live(&Value::Array(answer.into()), Operation::Get).is_err());
    }
}

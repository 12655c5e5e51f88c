//! The stored form of a lease: what the rows of an answer mean.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use syncguard_core::{
    Acquired, Error, ErrorCode, Fence, Key, Lease, LockId, LockRecord, Operation, Publication,
    Result, Timestamp,
};

/// The columns of one row, from left to right.
struct Columns {
    row: PgRow,
    operation: Operation,
}

impl Columns {
    fn text(&self, index: usize) -> Result<&str> {
        self.row.try_get(index).map_err(|error| self.corrupt().with_source(error))
    }

    fn number(&self, index: usize) -> Result<Option<i64>> {
        self.row.try_get(index).map_err(|error| self.corrupt().with_source(error))
    }

    /// A text that a SyncGuard client wrote in the form of `T`.
    fn parse<T: std::str::FromStr>(&self, index: usize) -> Result<T> {
        self.text(index)?.parse().map_err(|_| self.corrupt())
    }

    fn time(&self, index: usize) -> Result<Timestamp> {
        let millis = self.number(index)?.and_then(|millis| u64::try_from(millis).ok());
        millis.map(Timestamp::from_millis).ok_or_else(|| self.corrupt())
    }

    fn corrupt(&self) -> Error {
        corrupt(self.operation)
    }
}

/// A column of yes or no.
pub(crate) fn flag(row: &PgRow, index: usize, operation: Operation) -> Result<bool> {
    row.try_get(index).map_err(|error| corrupt(operation).with_source(error))
}

/// Whether a row of `extend_many.sql` has a renewed lease.
pub(crate) fn is_live(row: &PgRow, operation: Operation) -> Result<bool> {
    let expires_at: Option<i64> =
        row.try_get(2).map_err(|error| corrupt(operation).with_source(error))?;
    Ok(expires_at.is_some())
}

/// What is stored was not written by a SyncGuard client (E2).
fn corrupt(operation: Operation) -> Error {
    Error::new(ErrorCode::Internal, operation).with_message("the stored lock cannot be read")
}

/// The answer of `acquire.sql`.
pub(crate) fn acquired(row: Option<PgRow>, key: &Key, id: &LockId) -> Result<Acquired> {
    let operation = Operation::Acquire;
    let Some(row) = row else {
        return Err(Error::new(ErrorCode::Internal, operation).with_message("an empty answer"));
    };
    let columns = Columns { row, operation };
    let [expires_at, remaining, counted] =
        [columns.number(1)?, columns.number(2)?, columns.number(3)?];
    if expires_at.is_some() {
        let (fence, expires_at) = (columns.parse(0)?, columns.time(1)?);
        return Ok(Acquired::Granted(Lease::new(key.clone(), id.clone(), fence, expires_at)));
    }
    match remaining.or(counted) {
        // Nobody holds the key, and the counter did not move: A6.
        None => Err(used_up(operation)),
        Some(_) => Ok(Acquired::Held {
            remaining: remaining.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0))),
        }),
    }
}

/// The answer of `handoff.sql`, for a lease that was live.
pub(crate) fn handed_off(row: PgRow, key: &Key, id: &LockId) -> Result<Lease> {
    let operation = Operation::Handoff;
    let columns = Columns { row, operation };
    if columns.number(1)?.is_none() {
        return Err(used_up(operation));
    }
    Ok(Lease::new(key.clone(), id.clone(), columns.parse(0)?, columns.time(1)?))
}

/// A6.
fn used_up(operation: Operation) -> Error {
    Error::new(ErrorCode::Internal, operation)
        .with_message("the fence counter of this key is used up or cannot be read")
}

/// The answer of `extend.sql`.
pub(crate) fn extended(row: PgRow, id: &LockId) -> Result<Lease> {
    let columns = Columns { row, operation: Operation::Extend };
    let (key, fence, expires_at): (Key, Fence, _) =
        (columns.parse(0)?, columns.parse(1)?, columns.time(2)?);
    Ok(Lease::new(key, id.clone(), fence, expires_at))
}

/// The answer of `look_up.sql`.
pub(crate) fn record(operation: Operation, row: PgRow) -> Result<LockRecord> {
    let columns = Columns { row, operation };
    Ok(LockRecord::new(
        columns.parse(0)?,
        columns.parse(1)?,
        columns.parse(2)?,
        columns.time(3)?,
        columns.time(4)?,
    ))
}

/// The answer of `published.sql`.
pub(crate) fn publication(row: PgRow) -> Result<Publication> {
    let columns = Columns { row, operation: Operation::Published };
    let corrupt = || columns.corrupt().with_message("what the leader published cannot be read");
    let fence = columns.number(0)?.and_then(|fence| u64::try_from(fence).ok());
    let fence = fence.and_then(|fence| Fence::new(fence).ok()).ok_or_else(corrupt)?;
    let value = from_hex(columns.text(2)?).ok_or_else(corrupt)?;
    Publication::new(fence, columns.text(1)?, value)
        .map_err(|invalid| corrupt().with_source(invalid))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |start| u8::from_str_radix(text.get(start..start + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::from_hex;

    proptest::proptest! {
        #[test]
        fn e2_any_bytes_are_read_back(bytes: Vec<u8>) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(from_hex(&text), Some(bytes));
        }

        #[test]
        fn e2_no_stored_text_makes_a_read_panic(text in "([0-9a-f]{0,8}|\\PC{0,3}){0,4}") {
            let bytes = from_hex(&text);
            assert!(bytes.is_none_or(|bytes| bytes.len() * 2 == text.len()));
        }
    }
}

//! The fields of the documents of a key, and the conditional writes that change them.

pub(crate) mod publication;

use std::collections::HashMap;

use gcloud_sdk::google::firestore::v1::{
    Document, DocumentMask, Precondition, Value, Write, precondition::ConditionType,
    value::ValueType, write,
};
use gcloud_sdk::prost_types::Timestamp as Revision;
use syncguard_core::{Fence, Key, Lease, LockId, LockRecord, Result, Timestamp, is_live};

use crate::error::corrupt;

/// The field that look-ups by id search in.
pub(crate) const LOCK_ID: &str = "lockId";
const ACQUIRED_AT: &str = "acquiredAtMs";
const EXPIRES_AT: &str = "expiresAtMs";
const FENCE: &str = "fence";
const KEY: &str = "key";
const KEY_DEBUG: &str = "keyDebug";

/// A lock document as it was read.
pub(crate) struct StoredLock {
    pub(crate) name: String,
    pub(crate) record: LockRecord,
    pub(crate) revision: Revision,
}

impl StoredLock {
    /// Reads the lock if it is live at `now`.
    ///
    /// A dead one may lack fields, or hold a fence that no client grants: it must not block its key.
    pub(crate) fn read_live(document: &Document, now: Timestamp) -> Result<Option<Self>> {
        if is_live(expires_at(document), now) { Self::read(document).map(Some) } else { Ok(None) }
    }

    fn read(document: &Document) -> Result<Self> {
        let text = |field| match value(document, field) {
            Some(ValueType::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        let key = text(KEY)
            .and_then(|key| Key::new(key).ok())
            .ok_or_else(|| corrupt("the lock document has no readable key"))?;
        let id = text(LOCK_ID)
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| corrupt("the lock document has no readable lockId"))?;
        let fence = stored_fence(document)
            .ok_or_else(|| corrupt("the lock document has no readable fence"))?;
        let acquired_at = value(document, ACQUIRED_AT)
            .and_then(number)
            .ok_or_else(|| corrupt("the lock document has no readable acquiredAtMs"))?;
        let acquired_at = Timestamp::from_millis(acquired_at);
        Ok(Self {
            name: document.name.clone(),
            record: LockRecord::new(key, id, fence, acquired_at, expires_at(document)),
            revision: document
                .update_time
                .ok_or_else(|| corrupt("the lock document has no update time"))?,
        })
    }

    pub(crate) const fn id(&self) -> &LockId {
        self.record.id()
    }

    pub(crate) const fn is_live(&self, now: Timestamp) -> bool {
        is_live(self.record.expires_at(), now)
    }

    pub(crate) fn lease(&self) -> Lease {
        lease_of(&self.record, Some(self.revision))
    }
}

/// The lease that a lock document holds, marked with the revision in which it does.
pub(crate) fn lease_of(record: &LockRecord, revision: Option<Revision>) -> Lease {
    let (key, id) = (record.key().clone(), record.id().clone());
    let lease = Lease::new(key, id, record.fence(), record.expires_at());
    match revision {
        Some(revision) => lease.with_revision(revision_to_text(revision)),
        None => lease,
    }
}

/// Returns when the lock of this document ends.
///
/// A value that is no number is the distant past, as for SyncGuard for TypeScript, which compares it
/// with a number. Such a document blocks nobody.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and not-a-number becomes 0"
)]
fn expires_at(document: &Document) -> Timestamp {
    let millis = match value(document, EXPIRES_AT) {
        Some(ValueType::DoubleValue(number)) => *number as u64,
        Some(other) => number(other).unwrap_or(0),
        None => 0,
    };
    Timestamp::from_millis(millis)
}

/// Returns the fence in a lock document, if it is one that clients grant.
pub(crate) fn stored_fence(document: &Document) -> Option<Fence> {
    value(document, FENCE).and_then(number).and_then(|fence| Fence::new(fence).ok())
}

/// The last fence that was granted, as the counter document tells.
pub(crate) fn last_fence(document: &Document) -> Result<u64> {
    value(document, FENCE).and_then(number).ok_or_else(|| corrupt("the fence counter is no number"))
}

fn value<'a>(document: &'a Document, field: &str) -> Option<&'a ValueType> {
    document.fields.get(field)?.value_type.as_ref()
}

/// A whole number, in any of the forms in which clients have stored one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was checked to be within the range, and a fraction of a millisecond is no matter"
)]
fn number(value: &ValueType) -> Option<u64> {
    match value {
        ValueType::IntegerValue(number) => u64::try_from(*number).ok(),
        // Up to 2^63, what a double holds fits.
        ValueType::DoubleValue(number) if (0.0..9.3e18).contains(number) => Some(*number as u64),
        ValueType::StringValue(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().ok()
        }
        _ => None,
    }
}

/// The mark of a stored document in [`Lease::revision`].
fn revision_to_text(revision: Revision) -> String {
    format!("{}.{:09}", revision.seconds, revision.nanos)
}

/// `None` for a text that is no such mark: then the document is read.
pub(crate) fn revision_from_text(text: &str) -> Option<Revision> {
    let (seconds, nanos) = text.split_once('.')?;
    let (seconds, nanos) = (seconds.parse().ok()?, nanos.parse().ok()?);
    // Firestore has whole microseconds, and refuses a request with any other.
    let legal = (0..1_000_000_000).contains(&nanos) && nanos % 1_000 == 0;
    legal.then_some(Revision { seconds, nanos })
}

/// Stores a lock in place of what was read there, or where nothing was.
pub(crate) fn put_lock(name: String, record: &LockRecord, seen: Option<Revision>) -> Write {
    put(
        name,
        [
            (LOCK_ID, ValueType::StringValue(record.id().as_str().into())),
            (EXPIRES_AT, millis(record.expires_at())),
            (ACQUIRED_AT, millis(record.acquired_at())),
            (KEY, ValueType::StringValue(record.key().as_str().into())),
            (FENCE, ValueType::StringValue(record.fence().to_string())),
        ],
        seen,
    )
}

/// Moves a fence counter on from where it was read, or starts it where there was none.
pub(crate) fn put_fence(name: String, fence: Fence, key: &Key, seen: Option<Revision>) -> Write {
    put(
        name,
        [
            (FENCE, ValueType::StringValue(fence.to_string())),
            (KEY_DEBUG, ValueType::StringValue(key.as_str().into())),
        ],
        seen,
    )
}

/// Sets the expiry of a lock and leaves the rest as it is.
pub(crate) fn put_expiry(name: String, expires_at: Timestamp, seen: Revision) -> Write {
    Write {
        update_mask: Some(DocumentMask { field_paths: vec![EXPIRES_AT.to_owned()] }),
        ..put(name, [(EXPIRES_AT, millis(expires_at))], Some(seen))
    }
}

/// Deletes a document.
pub(crate) fn delete(name: String, seen: Revision) -> Write {
    Write {
        operation: Some(write::Operation::Delete(name)),
        current_document: Some(as_seen(Some(seen))),
        ..Write::default()
    }
}

fn put<const N: usize>(
    name: String,
    fields: [(&str, ValueType); N],
    seen: Option<Revision>,
) -> Write {
    let fields: HashMap<_, _> = fields
        .into_iter()
        .map(|(field, value)| {
            let value = Value { value_type: Some(value) };
            (field.to_owned(), value)
        })
        .collect();
    Write {
        operation: Some(write::Operation::Update(Document { name, fields, ..Document::default() })),
        current_document: Some(as_seen(seen)),
        ..Write::default()
    }
}

/// The precondition that a document is still as it was read.
fn as_seen(seen: Option<Revision>) -> Precondition {
    Precondition {
        condition_type: Some(seen.map_or(ConditionType::Exists(false), ConditionType::UpdateTime)),
    }
}

fn millis(time: Timestamp) -> ValueType {
    // The clock and the TTL are both far below 2^63.
    ValueType::IntegerValue(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;

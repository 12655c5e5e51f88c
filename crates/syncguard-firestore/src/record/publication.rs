//! The document of what a leader publishes.

use gcloud_sdk::google::firestore::v1::{Document, Write, value::ValueType};
use gcloud_sdk::prost_types::Timestamp as Revision;
use syncguard_core::{Fence, Key, Publication, Result, Timestamp, is_live};

use super::{EXPIRES_AT, FENCE, KEY, expires_at, millis, put, stored_fence, value};
use crate::error::corrupt;

const CANDIDATE: &str = "candidate";
const VALUE: &str = "value";

/// Returns whether the document has a higher fence than this. One that no client grants is none.
pub(crate) fn outranks(document: &Document, fence: Fence) -> bool {
    stored_fence(document).is_some_and(|stored| stored > fence)
}

pub(crate) fn has_expired(document: &Document, now: Timestamp) -> bool {
    !is_live(expires_at(document), now)
}

pub(crate) fn read(document: &Document) -> Result<Publication> {
    let fence = stored_fence(document)
        .ok_or_else(|| corrupt("the leader document has no readable fence"))?;
    let candidate = match value(document, CANDIDATE) {
        Some(ValueType::StringValue(candidate)) => candidate.as_str(),
        _ => return Err(corrupt("the leader document has no readable candidate")),
    };
    let value = match value(document, VALUE) {
        Some(ValueType::BytesValue(value)) => value.as_slice(),
        _ => return Err(corrupt("the leader document has no readable value")),
    };
    Publication::new(fence, candidate, value)
        .map_err(|invalid| corrupt("the leader document cannot be read").with_source(invalid))
}

/// Stores a publication in place of what was read there, or where nothing was.
pub(crate) fn put_publication(
    name: String,
    key: &Key,
    publication: &Publication,
    expires_at: Timestamp,
    seen: Option<Revision>,
) -> Write {
    put(
        name,
        [
            (FENCE, ValueType::StringValue(publication.fence().to_string())),
            (CANDIDATE, ValueType::StringValue(publication.candidate().into())),
            (VALUE, ValueType::BytesValue(publication.value().into())),
            (EXPIRES_AT, millis(expires_at)),
            (KEY, ValueType::StringValue(key.as_str().into())),
        ],
        seen,
    )
}

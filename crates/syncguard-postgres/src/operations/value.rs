//! The values of a statement.

use syncguard_core::{Fence, Key, LockId, Ttl};
use tokio::time::Instant;

/// A value for a parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(Option<&'a str>),
    Texts(&'a [&'a str]),
    Bytes(&'a [u8]),
    Fence(Fence),
    Millis(Option<i64>),
    AllMillis(&'a [i64]),
}

/// A TTL in ms, which is far below the limit of the type.
pub(crate) fn millis(ttl: Ttl) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

impl Value<'_> {
    /// Of a release, whose commit need not be on disk before the answer.
    pub(crate) const LAZY_COMMIT: Self = Self::Text(Some("off"));

    pub(crate) fn ttl(ttl: Ttl) -> Self {
        Self::Millis(Some(millis(ttl)))
    }

    /// The value as a part of a statement. Hexadecimal digits need no quoting, whatever the settings
    /// of the session.
    pub(super) fn literal(self) -> String {
        match self {
            Self::Text(None) | Self::Millis(None) => "NULL".to_owned(),
            Self::Text(Some(text)) => {
                format!("convert_from({}, 'UTF8')", Self::Bytes(text.as_bytes()).literal())
            }
            Self::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("decode('{hex}', 'hex')")
            }
            Self::Fence(fence) => fence.get().to_string(),
            Self::Texts(texts) => {
                let texts = texts.iter().map(|text| Self::Text(Some(text)).literal());
                format!("ARRAY[{}]::text[]", texts.collect::<Vec<_>>().join(","))
            }
            Self::Millis(Some(millis)) => millis.to_string(),
            Self::AllMillis(all) => {
                let all = all.iter().map(i64::to_string);
                format!("ARRAY[{}]::bigint[]", all.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl<'a> From<&'a Key> for Value<'a> {
    fn from(key: &'a Key) -> Self {
        Self::Text(Some(key.as_str()))
    }
}

impl<'a> From<&'a LockId> for Value<'a> {
    fn from(id: &'a LockId) -> Self {
        Self::Text(Some(id.as_str()))
    }
}

/// How long a statement that is sent now may wait for one lock, in ms. It may have to wait twice, for
/// the key and for a row, and must have come to its end on the server before the client gives it up.
pub(crate) fn patience(deadline: Instant) -> i64 {
    let limit = deadline.saturating_duration_since(Instant::now()) / 2;
    // Zero would mean no limit.
    i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1)
}

//! The name of a lock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{Error, ErrorCode, Fingerprint, Operation};

/// Names a lock: 1 to 512 bytes of UTF-8 in Unicode NFC, without NUL.
///
/// Two spellings that are equal after normalization are the same key (K2). `Debug` shows the
/// [fingerprint](Key::fingerprint). Only [`as_str`](Key::as_str) and conversions into text return
/// the text itself. A clone is cheap.
///
/// # Examples
///
/// ```
/// use syncguard_core::Key;
///
/// let composed = Key::new("caf\u{e9}")?;
/// assert_eq!(composed, Key::new("cafe\u{301}")?);
/// assert_eq!(format!("{composed:?}"), "Key(002e7a21248b3503a22cdb87)");
/// # Ok::<(), syncguard_core::InvalidKey>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in bytes after normalization to NFC.
    pub const MAX_LEN: usize = 512;

    /// Makes a key from a text, after normalization to NFC.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidKey`] if the normalized text is empty, is longer than
    /// [`MAX_LEN`](Self::MAX_LEN) bytes, or contains a NUL character.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        let key: Arc<str> = if is_nfc_quick(text.chars()) == IsNormalized::Yes {
            Arc::from(text)
        } else {
            Arc::from(text.nfc().collect::<String>())
        };
        match key.len() {
            0 => Err(InvalidKey::Empty),
            len if len > Self::MAX_LEN => Err(InvalidKey::TooLong { len }),
            _ if key.contains('\0') => Err(InvalidKey::Nul),
            _ => Ok(Self(key)),
        }
    }

    /// Returns the text, in NFC. Keep it out of logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the short name of this key for logs.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_nfc(self.0.chars())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.fingerprint())
    }
}

impl From<&Self> for Key {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

impl TryFrom<&str> for Key {
    type Error = InvalidKey;

    fn try_from(text: &str) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl TryFrom<String> for Key {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        Self::new(&text)
    }
}

impl TryFrom<&String> for Key {
    type Error = InvalidKey;

    fn try_from(text: &String) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl std::str::FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().into()
    }
}

/// Says why a text cannot be a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The text is empty.
    #[error("the key is empty: pass 1 to {max} bytes", max = Key::MAX_LEN)]
    Empty,
    /// The text contains a NUL character, which some stores cannot hold.
    #[error("the key contains a NUL character: remove it")]
    Nul,
    /// The text is longer than [`Key::MAX_LEN`].
    #[error("the key has {len} bytes after NFC: pass at most {max}", max = Key::MAX_LEN)]
    TooLong {
        /// The length of the text in bytes, after normalization.
        len: usize,
    },
}

impl From<InvalidKey> for Error {
    fn from(invalid: InvalidKey) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Acquire).with_message(invalid.to_string())
    }
}

// A bound `TryInto<Key, Error: Into<Error>>` then takes a `Key`, which always converts, and a text.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_bytes_are_counted_after_normalization() {
        assert_eq!(Key::new(""), Err(InvalidKey::Empty));
        assert!(Key::new(&"x".repeat(512)).is_ok());
        assert_eq!(Key::new(&"x".repeat(513)), Err(InvalidKey::TooLong { len: 513 }));
        // 768 decomposed bytes become 512 composed ones; U+0958 grows from 3 bytes to 6.
        assert!(Key::new(&"e\u{301}".repeat(256)).is_ok());
        assert_eq!(Key::new(&"\u{958}".repeat(86)), Err(InvalidKey::TooLong { len: 516 }));
        assert!(Key::new(&"\u{1f512}".repeat(128)).is_ok());
    }

    #[test]
    fn k1_nul_is_refused() {
        assert_eq!(Key::new("a\0b"), Err(InvalidKey::Nul));
    }

    #[test]
    fn k4_debug_is_a_fingerprint() {
        assert!(!format!("{:?}", Key::new("tenant-acme").unwrap()).contains("acme"));
    }

    #[test]
    fn k1_serde_normalizes_and_validates() {
        let key: Key = serde_json::from_str("\"cafe\u{301}\"").unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"caf\u{e9}\"");
        assert!(serde_json::from_str::<Key>("\"\"").is_err());
    }
}

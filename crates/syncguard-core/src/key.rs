//! The name of a lock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{Error, ErrorCode, Fingerprint, Operation};

/// The name of a lock: 1 to 512 bytes of UTF-8 in Unicode NFC, without NUL.
///
/// Two spellings that are equal after normalisation are one key. `Debug` shows the
/// [fingerprint](Key::fingerprint); the text itself comes only from [`as_str`](Key::as_str).
/// Cloning is cheap.
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
    /// The longest key, in bytes of its NFC form.
    pub const MAX_LEN: usize = 512;

    /// Makes a key of a text, which is normalised to NFC first.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when the normalised text is empty, longer than [`MAX_LEN`](Self::MAX_LEN)
    /// bytes, or contains a NUL character.
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

    /// The text, in NFC. Keep it out of logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this key for logs.
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

/// Why a text is no [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The text is empty.
    #[error("the key must not be empty")]
    Empty,
    /// The text contains a NUL character, which not every store can keep.
    #[error("the key must not contain a NUL character")]
    Nul,
    /// The text is longer than [`Key::MAX_LEN`].
    #[error("the key is {len} bytes long after NFC, the maximum is {max}", max = Key::MAX_LEN)]
    TooLong {
        /// Its length in bytes, after normalisation.
        len: usize,
    },
}

impl From<InvalidKey> for Error {
    fn from(invalid: InvalidKey) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Acquire).with_message(invalid.to_string())
    }
}

/// A key is already a key: lets `TryInto<Key, Error: Into<Error>>` take both texts and keys.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_bytes_are_counted_after_normalisation() {
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
    fn serde_checks_what_it_reads() {
        let key: Key = serde_json::from_str("\"cafe\u{301}\"").unwrap();
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"caf\u{e9}\"");
        assert!(serde_json::from_str::<Key>("\"\"").is_err());
    }
}

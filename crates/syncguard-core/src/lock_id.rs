//! The identity of one acquisition.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Fingerprint, Operation};

/// Identifies one acquisition: 16 random bytes, written as 22 base64url characters.
///
/// The client makes the id before it sends the first byte. If the reply is lost, it can repeat the
/// acquisition or undo it by this id (I2). The id is enough to release or extend the lease, so treat
/// it like a password. `Debug` shows only the [fingerprint](LockId::fingerprint).
///
/// # Examples
///
/// ```
/// use syncguard_core::LockId;
///
/// let id: LockId = "AAECAwQFBgcICQoLDA0ODw".parse()?;
/// assert_eq!(id.as_str(), "AAECAwQFBgcICQoLDA0ODw");
/// assert!("too short".parse::<LockId>().is_err());
/// # Ok::<(), syncguard_core::InvalidLockId>(())
/// ```
// The characters stand in the id itself, because ids are cloned for every attempt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LockId([u8; Self::LEN]);

impl LockId {
    /// The length of the text form, in bytes.
    pub const LEN: usize = 22;

    /// Makes a new id from the random source of the operating system.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorCode::Internal`] if the operating system provides no random bytes.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|source| {
            Error::new(ErrorCode::Internal, Operation::Acquire)
                .with_message(
                    "the operating system provided no random bytes: check its random source",
                )
                .with_source(source)
        })?;
        let mut text = [0; Self::LEN];
        #[allow(clippy::expect_used, reason = "16 bytes are always 22 characters")]
        URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).expect("the text has room");
        Ok(Self(text))
    }

    /// Returns the 22 characters. Keep them out of logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Every constructor checks that the characters are ASCII, so this never fails.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the short name of this id for logs, from which the id cannot be found (I3).
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_secret(&self.0)
    }
}

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockId({})", self.fingerprint())
    }
}

impl std::str::FromStr for LockId {
    type Err = InvalidLockId;

    /// Accepts a text that matches `^[A-Za-z0-9_-]{22}$` (I1).
    // The last character carries only two bits of the 16 bytes. Its other bits need not be zero,
    // because other clients accept every character there.
    fn from_str(text: &str) -> Result<Self, InvalidLockId> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match text.as_bytes().try_into() {
            Ok(bytes) if text.bytes().all(legal) => Ok(Self(bytes)),
            _ => Err(InvalidLockId { _private: () }),
        }
    }
}

impl TryFrom<String> for LockId {
    type Error = InvalidLockId;

    /// Accepts what [`FromStr`](std::str::FromStr) accepts.
    fn try_from(text: String) -> Result<Self, InvalidLockId> {
        text.parse()
    }
}

impl From<LockId> for String {
    fn from(id: LockId) -> Self {
        id.as_str().to_owned()
    }
}

/// Says that a text is not a [`LockId`].
///
/// It does not contain the text, which may be a real lock id with a typing error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lock id: pass exactly 22 characters of A-Z, a-z, 0-9, '_' and '-'")]
pub struct InvalidLockId {
    _private: (),
}

impl From<InvalidLockId> for Error {
    fn from(invalid: InvalidLockId) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Parse).with_message(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn i1_an_id_has_exactly_22_characters_of_the_alphabet() {
        for good in ["AAECAwQFBgcICQoLDA0ODw", "______________________", "-_aZ09aaaaaaaaaaaaaaaa"] {
            assert_eq!(good.parse::<LockId>().unwrap().as_str(), good);
        }
        let bad = [
            "",
            "AAECAwQFBgcICQoLDA0OD",
            "AAECAwQFBgcICQoLDA0ODww",
            "AAECAwQFBgcICQoLDA0OD=",
            "AAECAwQFBgcICQoLDA0OD+",
            "AAECAwQFBgcICQoLDA0OD/",
            "AAECAwQFBgcICQoLDA0ODw\n",
            " AECAwQFBgcICQoLDA0ODw",
            "\u{410}ECAwQFBgcICQoLDA0ODw",
        ];
        for bad in bad {
            assert!(bad.parse::<LockId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn i3_k4_debug_is_a_cryptographic_fingerprint() {
        let id: LockId = "AAECAwQFBgcICQoLDA0ODw".parse().unwrap();
        assert_eq!(format!("{id:?}"), "LockId(5d2611d5a4dd2b40b277dfdb)");
    }

    proptest! {
        #[test]
        fn i1_parsing_accepts_exactly_the_pattern(text in "[A-Za-z0-9_+/=-]{21,23}") {
            let legal = text.len() == 22 && !text.contains(['+', '/', '=']);
            prop_assert_eq!(text.parse::<LockId>().is_ok(), legal);
        }
    }

    #[test]
    fn i1_i2_random_ids_parse_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|_| LockId::random().unwrap().as_str().parse::<LockId>().unwrap())
            .collect();
        assert_eq!(ids.len(), 1000);
    }
}

//! Short names for keys and lock ids, for use in logs.

use std::fmt;

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// Names a key or a lock id in logs, spans and events without showing its text.
///
/// A fingerprint has 96 bits and prints as 24 hexadecimal digits. That of a key is the same in every
/// SyncGuard client. It is not a cryptographic hash, so a short key can be guessed from it. That of a
/// lock id is a part of its SHA-256, which tells nothing about the id.
///
/// # Examples
///
/// ```
/// use syncguard_core::Fingerprint;
///
/// assert_eq!(Fingerprint::of("resource:123").to_string(), "e90a28c676a29a3291e2874a");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u32; 3]);

impl Fingerprint {
    /// Computes the fingerprint of a text, after normalization to NFC.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::of_nfc(text.nfc())
    }

    /// Computes the fingerprint of a secret, which cannot be found from it.
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let word = |at: usize| {
            u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]])
        };
        Self([word(0), word(4), word(8)])
    }

    /// Computes the fingerprint of characters that are already in NFC.
    pub(crate) fn of_nfc(chars: impl Iterator<Item = char>) -> Self {
        let mut sums = [0u32; 3];
        for c in chars {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let unit = u32::from(*unit);
                for (sum, (base, weight)) in sums.iter_mut().zip([(31, 1), (127, 3), (2047, 7)]) {
                    *sum = sum.wrapping_mul(base).wrapping_add(unit.wrapping_mul(weight));
                }
            }
        }
        Self(sums)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.0;
        write!(f, "{a:08x}{b:08x}{c:08x}")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

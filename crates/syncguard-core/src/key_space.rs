//! The names of keys in a store: prefixes, hashes of long names, and derived keys (K3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{Error, ErrorCode, Key, LockId, Operation};

/// Computes the names under which a backend stores locks and fence counters (K3).
///
/// A name is the prefix, a colon and the key. If that is too long for the store, the prefix and a
/// hash of the whole name replace it. Every SyncGuard client computes the same names.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Key, KeySpace};
///
/// let names = KeySpace::new("myapp:locks:", 1_000, 26)?;
/// let base = names.base_key(&Key::new("resource:123")?);
/// assert_eq!(base, "myapp:locks:resource:123");
/// assert_eq!(names.fence_key(&base), "myapp:locks:fence:myapp:locks:resource:123");
/// # Ok::<(), syncguard_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeySpace {
    /// Empty, or with exactly one colon at the end.
    prefix: String,
    /// The length of the longest name, in bytes.
    limit: usize,
}

/// 16 bytes of SHA-256 in base64url, without padding.
const HASH_LEN: usize = 22;

impl KeySpace {
    /// Makes the names that start with `prefix`.
    ///
    /// The store takes names of up to `limit` bytes. The last `reserve` bytes of them stay unused.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidPrefix`] if the prefix leaves no room for a hash.
    pub fn new(prefix: &str, limit: usize, reserve: usize) -> Result<Self, InvalidPrefix> {
        let mut prefix = prefix.trim_end_matches(':').to_owned();
        if !prefix.is_empty() {
            prefix.push(':');
        }
        let limit = limit.saturating_sub(reserve);
        if prefix.len() + HASH_LEN > limit {
            return Err(InvalidPrefix { max: limit.saturating_sub(HASH_LEN + 1) });
        }
        Ok(Self { prefix, limit })
    }

    /// Returns the prefix of every name: an empty text, or one that ends with a colon.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the name of the stored lock of a key.
    #[must_use]
    pub fn base_key(&self, key: &Key) -> String {
        self.name(key.as_str())
    }

    /// Returns the name of the stored lock of a key, always with a hash.
    ///
    /// It is for stores that do not accept every key as a name.
    #[must_use]
    pub fn hashed_base_key(&self, key: &Key) -> String {
        self.hashed(&format!("{}{}", self.prefix, key.as_str()))
    }

    /// Returns the name of the fence counter that belongs to the lock named `base_key`.
    #[must_use]
    pub fn fence_key(&self, base_key: &str) -> String {
        self.name(&format!("fence:{base_key}"))
    }

    /// Returns the name of what a leader publishes beside the lock named `base_key`.
    ///
    /// It contains a NUL character. Keys contain none, so no lock, fence counter or index entry has
    /// this name (N8). It starts with the prefix, and so with its hash tag. A name that is too long is
    /// replaced by a hash and a NUL, which may take one byte of the reserve.
    #[must_use]
    pub fn publication_key(&self, base_key: &str) -> String {
        let name = format!("{}leader\0{base_key}", self.prefix);
        if name.len() <= self.limit { name } else { self.hashed(&name) + "\0" }
    }

    /// Returns the name of the index entry that maps a lock id to its key.
    #[must_use]
    pub fn id_key(&self, id: &LockId) -> String {
        self.name(&format!("id:{}", id.as_str()))
    }

    fn name(&self, key: &str) -> String {
        // Other clients normalize only the part after the prefix, so this does the same. In the name
        // of a fence counter, that part contains the prefix again.
        let mut full = String::with_capacity(self.prefix.len() + key.len());
        full.push_str(&self.prefix);
        if is_nfc_quick(key.chars()) == IsNormalized::Yes {
            full.push_str(key);
        } else {
            full.extend(key.nfc());
        }
        if full.len() <= self.limit { full } else { self.hashed(&full) }
    }

    fn hashed(&self, full: &str) -> String {
        let digest = Sha256::digest(full);
        let (head, _) = digest.split_at(16);
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(head))
    }
}

/// Says that a prefix leaves no room for a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key prefix is too long: use at most {max} bytes")]
pub struct InvalidPrefix {
    max: usize,
}

impl From<InvalidPrefix> for Error {
    fn from(invalid: InvalidPrefix) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Configure)
            .with_message(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_has_a_name_that_no_key_has() {
        for prefix in ["", "app", &"p".repeat(951)] {
            let names = KeySpace::new(prefix, 1_000, 26).unwrap();
            let mut all = Vec::new();
            for key in ["k", "leader:k", &"k".repeat(512), &format!("{}l", "k".repeat(511))] {
                let base = names.base_key(&Key::new(key).unwrap());
                let name = names.publication_key(&base);
                assert!(name.starts_with(names.prefix()) && name.contains('\0'), "{name:?}");
                assert!(name.len() <= 974 + 1, "{name:?}");
                assert!(!names.fence_key(&base).contains('\0'));
                all.push(name);
            }
            all.sort();
            all.dedup();
            assert_eq!(all.len(), 4, "{prefix}");
        }
    }
}

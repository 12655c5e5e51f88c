//! How keys are named in a store: prefixes, truncation and derived keys, the same in every client.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{Error, ErrorCode, Key, LockId, Operation};

/// The names that one backend gives to keys in its store.
///
/// A name is the prefix, a colon and the key, or a hash in place of the key where that would be too
/// long for the store.
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
    /// Without trailing colons, and with one where there is anything in front of it.
    prefix: String,
    /// The longest name, in bytes.
    limit: usize,
}

/// 16 bytes of SHA-256 in base64url, without padding.
const HASH_LEN: usize = 22;

impl KeySpace {
    /// The names behind `prefix`, in a store that takes names of up to `limit` bytes of which
    /// `reserve` are kept free.
    ///
    /// # Errors
    ///
    /// [`InvalidPrefix`] when not even a hashed key fits behind the prefix.
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

    /// The prefix in front of every name: empty, or ending in one colon.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the lock of this key is stored.
    #[must_use]
    pub fn base_key(&self, key: &Key) -> String {
        self.name(key.as_str())
    }

    /// Where the lock of this key is stored in a store that does not take the key itself as a name.
    #[must_use]
    pub fn hashed_base_key(&self, key: &Key) -> String {
        self.hashed(&format!("{}{}", self.prefix, key.as_str()))
    }

    /// Where the fence counter is stored that belongs to the lock stored at `base_key`.
    #[must_use]
    pub fn fence_key(&self, base_key: &str) -> String {
        self.name(&format!("fence:{base_key}"))
    }

    /// Where the key of the lock with this id is stored.
    #[must_use]
    pub fn id_key(&self, id: &LockId) -> String {
        self.name(&format!("id:{}", id.as_str()))
    }

    fn name(&self, key: &str) -> String {
        // The prefix stays as it was given, except where it is a part of a derived key.
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

/// A prefix behind which not even a hashed key fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key prefix is too long, the maximum is {max} bytes")]
pub struct InvalidPrefix {
    max: usize,
}

impl From<InvalidPrefix> for Error {
    fn from(invalid: InvalidPrefix) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Configure)
            .with_message(invalid.to_string())
    }
}

//! The subject of an error: the key or the lock id that it is about.

use crate::{Error, Key, LockId};

impl Error {
    /// Adds the fingerprint of the key.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.key = Some(key.fingerprint());
        self
    }

    /// Adds the fingerprint of the lock id.
    #[must_use]
    pub fn with_id(mut self, id: &LockId) -> Self {
        self.id = Some(id.fingerprint());
        self
    }
}

//! A grant, and what a lookup returns for it.

use serde::{Deserialize, Serialize};

use crate::{Fence, Key, LockId, Timestamp};

/// Describes one grant of one key.
///
/// A lease is plain data: dropping it releases nothing. It can be serialized, so that another
/// process can continue to hold the key. The serialized form contains the key and the lock id in
/// clear. Treat it like a password, because the lock id is enough to release the lease.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Fence, Key, Lease, LockId, Timestamp};
///
/// let expires_at = Timestamp::from_millis(1_795_451_239_701);
/// let lease = Lease::new(Key::new("payment:42")?, LockId::random()?, Fence::new(7)?, expires_at);
/// let json = serde_json::to_string(&lease).expect("a lease has a JSON form");
/// assert_eq!(serde_json::from_str::<Lease>(&json).expect("this is a lease"), lease);
/// # Ok::<(), syncguard_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    key: Key,
    id: LockId,
    fence: Fence,
    #[serde(rename = "expires_at_ms")]
    expires_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

impl Lease {
    /// Makes a lease. Backends call this after a grant.
    #[must_use]
    pub const fn new(key: Key, id: LockId, fence: Fence, expires_at: Timestamp) -> Self {
        Self { key, id, fence, expires_at, revision: None }
    }

    /// Adds a revision: text with which the backend can recognize what it stored.
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Changes the expiry, as after an extension.
    #[must_use]
    pub const fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the lock id of this acquisition.
    #[must_use]
    pub const fn id(&self) -> &LockId {
        &self.id
    }

    /// Returns the fence of the grant.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns when the lease expires, on the backend's clock.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Returns the backend's revision, if it set one.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

/// Describes a live lease, as a lookup by key or by id returns it.
///
/// A record is for diagnosis (L3). It does not protect a write, because the lease may end at any
/// time after the lookup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockRecord {
    key: Key,
    id: LockId,
    fence: Fence,
    #[serde(rename = "acquired_at_ms")]
    acquired_at: Timestamp,
    #[serde(rename = "expires_at_ms")]
    expires_at: Timestamp,
}

impl LockRecord {
    /// Makes a record. Backends call this for the data that they have stored.
    #[must_use]
    pub const fn new(
        key: Key,
        id: LockId,
        fence: Fence,
        acquired_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self { key, id, fence, acquired_at, expires_at }
    }

    /// Returns the key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the lock id of the acquisition that holds the key.
    #[must_use]
    pub const fn id(&self) -> &LockId {
        &self.id
    }

    /// Returns the fence of the grant.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns when the key was granted, on the backend's clock.
    #[must_use]
    pub const fn acquired_at(&self) -> Timestamp {
        self.acquired_at
    }

    /// Returns when the lease expires, on the backend's clock.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::is_live;

    fn lease() -> Lease {
        Lease::new(
            Key::new("payment:42").unwrap(),
            "AAECAwQFBgcICQoLDA0ODw".parse().unwrap(),
            Fence::new(7).unwrap(),
            Timestamp::from_millis(1_795_451_239_701),
        )
    }

    #[test]
    fn a_lease_is_the_same_after_serialization() {
        let json = serde_json::to_string(&lease()).unwrap();
        assert_eq!(
            json,
            r#"{"key":"payment:42","id":"AAECAwQFBgcICQoLDA0ODw","fence":"000000000000007","expires_at_ms":1795451239701}"#
        );
        assert_eq!(serde_json::from_str::<Lease>(&json).unwrap(), lease());

        let with_revision = lease().with_revision("17.5");
        let json = serde_json::to_string(&with_revision).unwrap();
        assert_eq!(serde_json::from_str::<Lease>(&json).unwrap(), with_revision);
    }

    #[test]
    fn e2_a_forged_lease_is_refused_or_harmless() {
        let json = |fence: &str, expires_at: &str| {
            format!(
                r#"{{"key":"k","id":"AAECAwQFBgcICQoLDA0ODw","fence":{fence},"expires_at_ms":{expires_at}}}"#
            )
        };
        for (fence, expires_at) in [
            (r#""9999999999999999""#, "1"),
            (r#""-00000000000001""#, "1"),
            ("7", "1"),
            (r#""000000000000007""#, "-1"),
            (r#""000000000000007""#, "18446744073709551616"),
            (r#""000000000000007""#, "1e300"),
            (r#""000000000000007""#, "null"),
        ] {
            assert!(serde_json::from_str::<Lease>(&json(fence, expires_at)).is_err());
        }
        let lease: Lease =
            serde_json::from_str(&json(r#""999999999999999""#, &u64::MAX.to_string())).unwrap();
        assert_eq!(lease.fence(), Fence::MAX);
        assert!(is_live(lease.expires_at(), Timestamp::from_millis(0)));
        assert!(SystemTime::from(lease.expires_at()) > SystemTime::UNIX_EPOCH);
        assert!(format!("{lease:?} {}", lease.expires_at()).contains("+584556019"));
    }

    #[test]
    fn k4_debug_shows_no_key_and_no_lock_id() {
        let text = format!("{:?}", lease());
        assert!(!text.contains("payment") && !text.contains("AAECAw"), "{text}");
    }
}

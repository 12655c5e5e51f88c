//! A grant, and what a look-up shows of it.

use serde::{Deserialize, Serialize};

use crate::{Fence, Key, LockId, Timestamp};

/// One grant of one key.
///
/// It is plain data: it keeps nothing alive and releases nothing when dropped. It can be
/// serialised, so that another process can go on with it. It holds the raw lock id, so treat the
/// serialised form like a password.
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
    /// A lease as a backend granted it.
    #[must_use]
    pub const fn new(key: Key, id: LockId, fence: Fence, expires_at: Timestamp) -> Self {
        Self { key, id, fence, expires_at, revision: None }
    }

    /// Adds a mark of the backend's own, with which it can recognise what it stored.
    #[must_use]
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// The same lease after it was extended.
    #[must_use]
    pub const fn with_expires_at(mut self, expires_at: Timestamp) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The id of this acquisition.
    #[must_use]
    pub const fn id(&self) -> &LockId {
        &self.id
    }

    /// The fencing token.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// When the lease expires, on the backend's clock.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The backend's own mark, if it set one.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

/// What a look-up shows of a live lease.
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
    /// A record as a backend stores it.
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

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The id of the acquisition that holds the key.
    #[must_use]
    pub const fn id(&self) -> &LockId {
        &self.id
    }

    /// The fencing token of the grant.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// When the key was granted, on the backend's clock.
    #[must_use]
    pub const fn acquired_at(&self) -> Timestamp {
        self.acquired_at
    }

    /// When the lease expires, on the backend's clock.
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
    fn a_lease_survives_serialisation() {
        let json = serde_json::to_string(&lease()).unwrap();
        assert_eq!(
            json,
            r#"{"key":"payment:42","id":"AAECAwQFBgcICQoLDA0ODw","fence":"000000000000007","expires_at_ms":1795451239701}"#
        );
        assert_eq!(serde_json::from_str::<Lease>(&json).unwrap(), lease());

        let marked = lease().with_revision("17.5");
        let json = serde_json::to_string(&marked).unwrap();
        assert_eq!(serde_json::from_str::<Lease>(&json).unwrap(), marked);
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
    fn k4_debug_shows_no_raw_name() {
        let text = format!("{:?}", lease());
        assert!(!text.contains("payment") && !text.contains("AAECAw"), "{text}");
    }
}

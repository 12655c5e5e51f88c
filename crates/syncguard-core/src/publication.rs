//! What a leader publishes beside its lock.

use std::fmt;

use crate::{Error, ErrorCode, Fence, Operation};

/// Says who leads a key, and what that leader announces, such as its address.
///
/// A leader holds the lock of a key. It may [publish](crate::Backend::publish) a name and a value in a
/// record of its own, beside that of the lock. The fence is that of its lease. A reader accepts a
/// publication only if the key is held with this fence: a leader that crashed could not withdraw it.
///
/// `Debug` shows the length of the value, not its bytes.
///
/// # Examples
///
/// ```
/// use syncguard_core::{Fence, Publication};
///
/// let publication = Publication::new(Fence::new(7)?, "node-3", "10.0.0.3:8080")?;
/// assert_eq!(publication.candidate(), "node-3");
/// assert_eq!(publication.value(), b"10.0.0.3:8080");
/// # Ok::<(), syncguard_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    fence: Fence,
    candidate: String,
    value: Vec<u8>,
}

impl Publication {
    /// The longest name of a candidate, in bytes.
    pub const MAX_CANDIDATE_LEN: usize = 256;
    /// The longest value, in bytes.
    pub const MAX_VALUE_LEN: usize = 4_096;

    /// Makes a publication. `fence` is that of the leader's lease; the name and the value may be empty.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidPublication`] if the name is longer than
    /// [`MAX_CANDIDATE_LEN`](Self::MAX_CANDIDATE_LEN) or contains a NUL character, or if the value is
    /// longer than [`MAX_VALUE_LEN`](Self::MAX_VALUE_LEN).
    pub fn new(
        fence: Fence,
        candidate: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Self, InvalidPublication> {
        let (candidate, value) = (candidate.into(), value.into());
        if candidate.len() > Self::MAX_CANDIDATE_LEN {
            return Err(InvalidPublication::CandidateTooLong { len: candidate.len() });
        }
        if candidate.contains('\0') {
            return Err(InvalidPublication::Nul);
        }
        if value.len() > Self::MAX_VALUE_LEN {
            return Err(InvalidPublication::ValueTooLong { len: value.len() });
        }
        Ok(Self { fence, candidate, value })
    }

    /// Returns the fence of the lease under which this was published.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns the name of the leader, as it chose it. The name may be empty.
    #[must_use]
    pub fn candidate(&self) -> &str {
        &self.candidate
    }

    /// Returns what the leader announces. The value may be empty.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("fence", &self.fence)
            .field("candidate", &self.candidate)
            .field("value", &format_args!("{} bytes", self.value.len()))
            .finish()
    }
}

/// Says why a name and a value cannot be a [`Publication`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPublication {
    /// The name is longer than [`Publication::MAX_CANDIDATE_LEN`].
    #[error(
        "the name of the candidate has {len} bytes: pass at most {max}",
        max = Publication::MAX_CANDIDATE_LEN
    )]
    CandidateTooLong {
        /// The length of the name in bytes.
        len: usize,
    },
    /// The name contains a NUL character, which some stores cannot hold.
    #[error("the name of the candidate contains a NUL character: remove it")]
    Nul,
    /// The value is longer than [`Publication::MAX_VALUE_LEN`].
    #[error("the published value has {len} bytes: pass at most {max}", max = Publication::MAX_VALUE_LEN)]
    ValueTooLong {
        /// The length of the value in bytes.
        len: usize,
    },
}

impl From<InvalidPublication> for Error {
    fn from(invalid: InvalidPublication) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Publish).with_message(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(candidate: &str, value: &[u8]) -> Result<Publication, InvalidPublication> {
        Publication::new(Fence::new(7).unwrap(), candidate, value)
    }

    #[test]
    fn lengths_are_limited_in_bytes() {
        assert!(of("", b"").is_ok());
        assert!(of(&"\u{e9}".repeat(128), &[0; 4_096]).is_ok());
        let name = of(&"\u{e9}".repeat(129), b"");
        assert_eq!(name, Err(InvalidPublication::CandidateTooLong { len: 258 }));
        let value = of("node", &[0; 4_097]);
        assert_eq!(value, Err(InvalidPublication::ValueTooLong { len: 4_097 }));
    }

    #[test]
    fn a_name_has_no_nul_and_a_value_may() {
        assert_eq!(of("a\0b", b""), Err(InvalidPublication::Nul));
        assert!(of("node", b"a\0b").is_ok());
        let error = Error::from(InvalidPublication::Nul);
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(error.operation(), Operation::Publish);
    }

    #[test]
    fn debug_does_not_show_the_value() {
        let text = format!("{:?}", of("node", b"secret").unwrap());
        let expected =
            "Publication { fence: Fence(000000000000007), candidate: \"node\", value: 6 bytes }";
        assert_eq!(text, expected);
    }
}

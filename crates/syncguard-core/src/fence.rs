//! The fencing token of a grant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Operation};

#[cfg(feature = "sqlx")]
mod sqlx;

/// Identifies a grant by a number that rises with every grant of the same key.
///
/// Pass the fence to the resource that the lock protects, and let the resource refuse a fence that
/// is lower than one it has seen. A holder that was paused for longer than its lease then cannot
/// overwrite the work of its successor.
///
/// As text, and in serde, a fence always has 15 digits, so texts sort like numbers. With the feature
/// `sqlx`, a fence can be bound to a query and read from a row as `BIGINT`.
///
/// # Examples
///
/// ```
/// use syncguard_core::Fence;
///
/// let fence = Fence::new(42)?;
/// assert_eq!(fence.to_string(), "000000000000042");
/// assert!("000000000000043".parse::<Fence>()? > fence);
/// # Ok::<(), syncguard_core::InvalidFence>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fence(u64);

impl Fence {
    /// The highest fence that fits into 15 digits.
    pub const MAX: Self = Self(999_999_999_999_999);
    /// The highest fence that a backend grants (A6).
    pub const MAX_GRANTED: Self = Self(900_000_000_000_000);
    /// A grant with a fence above this one logs a warning, because a tenth of the range is used up.
    pub const WARN_ABOVE: Self = Self(90_000_000_000_000);

    /// Makes a fence from a number.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidFence`] if the number is above [`MAX`](Self::MAX).
    pub const fn new(number: u64) -> Result<Self, InvalidFence> {
        if number > Self::MAX.0 {
            return Err(InvalidFence { _private: () });
        }
        Ok(Self(number))
    }

    /// Makes the fence of a new grant from the next number of the backend's counter.
    ///
    /// Backends call this before they write anything (A6).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorCode::Internal`] if the number is above [`MAX_GRANTED`](Self::MAX_GRANTED).
    pub fn granted(number: u64) -> Result<Self, Error> {
        if number > Self::MAX_GRANTED.0 {
            return Err(Error::new(ErrorCode::Internal, Operation::Acquire)
                .with_message("the fence counter of this key is used up: use another key"));
        }
        Ok(Self(number))
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:015}", self.0)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({self})")
    }
}

impl std::str::FromStr for Fence {
    type Err = InvalidFence;

    fn from_str(text: &str) -> Result<Self, InvalidFence> {
        let invalid = InvalidFence { _private: () };
        if text.len() != 15 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid);
        }
        text.parse().map(Self).map_err(|_| invalid)
    }
}

impl TryFrom<String> for Fence {
    type Error = InvalidFence;

    fn try_from(text: String) -> Result<Self, InvalidFence> {
        text.parse()
    }
}

impl From<Fence> for String {
    fn from(fence: Fence) -> Self {
        fence.to_string()
    }
}

/// Says that a number or a text is not a [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fence: pass a number below 10^15, as text with exactly 15 digits")]
pub struct InvalidFence {
    _private: (),
}

impl From<InvalidFence> for Error {
    fn from(invalid: InvalidFence) -> Self {
        Self::new(ErrorCode::InvalidArgument, Operation::Parse).with_message(invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a3_a_fence_is_written_with_exactly_15_digits() {
        for bad in
            ["", "1", "00000000000001", "0000000000000001", "+00000000000001", " 00000000000001"]
        {
            assert!(bad.parse::<Fence>().is_err(), "{bad:?}");
        }
        assert!(Fence::new(1_000_000_000_000_000).is_err());
    }

    #[test]
    fn a6_the_limit_is_compared_as_a_number() {
        assert!(Fence::granted(900_000_000_000_000).is_ok());
        for over in [900_000_000_000_001, 1_000_000_000_000_000, u64::MAX] {
            assert_eq!(Fence::granted(over).unwrap_err().code(), ErrorCode::Internal);
        }
    }

    #[test]
    fn serde_writes_the_15_digits() {
        let fence = Fence::new(7).unwrap();
        assert_eq!(serde_json::to_string(&fence).unwrap(), "\"000000000000007\"");
        assert_eq!(serde_json::from_str::<Fence>("\"000000000000007\"").unwrap(), fence);
        assert!(serde_json::from_str::<Fence>("7").is_err());
    }

    proptest! {
        #[test]
        fn a3_texts_sort_like_numbers(a in 0..=Fence::MAX.0, b in 0..=Fence::MAX.0) {
            let (a, b) = (Fence(a), Fence(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse::<Fence>().unwrap(), a);
        }
    }
}

//! The fencing token of a grant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, Operation};

#[cfg(feature = "sqlx")]
mod sqlx;

/// The fencing token of a grant: a number that is higher with every grant of the same key.
///
/// Hand it to whatever the lock protects, and let that refuse a lower fence than it has seen: then
/// a holder that was paused for longer than its lease can do no harm. As text, in serde too, it is
/// always 15 digits, so that the order of texts is the order of numbers.
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
    /// The highest fence that 15 digits can write.
    pub const MAX: Self = Self(999_999_999_999_999);
    /// The highest fence that is ever granted.
    pub const MAX_GRANTED: Self = Self(900_000_000_000_000);
    /// Fences above this one come with a warning in the log: a tenth of the range is used up.
    pub const WARN_ABOVE: Self = Self(90_000_000_000_000);

    /// Makes a fence of a number.
    ///
    /// # Errors
    ///
    /// [`InvalidFence`] above [`MAX`](Self::MAX).
    pub const fn new(number: u64) -> Result<Self, InvalidFence> {
        if number > Self::MAX.0 {
            return Err(InvalidFence { _private: () });
        }
        Ok(Self(number))
    }

    /// The fence of a new grant, as a backend's counter gives it. Check it before anything is
    /// written.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Internal`] above [`MAX_GRANTED`](Self::MAX_GRANTED).
    pub fn granted(number: u64) -> Result<Self, Error> {
        if number > Self::MAX_GRANTED.0 {
            return Err(Error::new(ErrorCode::Internal, Operation::Acquire)
                .with_message("the fence counter of this key is used up"));
        }
        Ok(Self(number))
    }

    /// The number.
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

/// A number or text that is no [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fence is a number of at most 15 digits, written with all 15")]
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
    fn text_is_exactly_15_digits() {
        for bad in
            ["", "1", "00000000000001", "0000000000000001", "+00000000000001", " 00000000000001"]
        {
            assert!(bad.parse::<Fence>().is_err(), "{bad:?}");
        }
        assert!(Fence::new(1_000_000_000_000_000).is_err());
    }

    #[test]
    fn a6_the_limit_is_a_number() {
        assert!(Fence::granted(900_000_000_000_000).is_ok());
        for over in [900_000_000_000_001, 1_000_000_000_000_000, u64::MAX] {
            assert_eq!(Fence::granted(over).unwrap_err().code(), ErrorCode::Internal);
        }
    }

    #[test]
    fn serde_is_the_text() {
        let fence = Fence::new(7).unwrap();
        assert_eq!(serde_json::to_string(&fence).unwrap(), "\"000000000000007\"");
        assert_eq!(serde_json::from_str::<Fence>("\"000000000000007\"").unwrap(), fence);
        assert!(serde_json::from_str::<Fence>("7").is_err());
    }

    proptest! {
        #[test]
        fn order_of_texts_is_order_of_numbers(a in 0..=Fence::MAX.0, b in 0..=Fence::MAX.0) {
            let (a, b) = (Fence(a), Fence(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse::<Fence>().unwrap(), a);
        }
    }
}

//! The name of a key in notifications, and its bucket.

use sha2::{Digest, Sha256};
use syncguard_core::Key;

/// The number of a waiter lock.
pub(super) type Bucket = u8;

/// The first eight bytes of the key's SHA-256, in hex: what the release statement computes, too.
pub(super) fn name_of(key: &Key) -> String {
    let hash = Sha256::digest(key.as_str());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The first byte of the hash that a name begins with.
pub(super) fn bucket_of(name: &str) -> Bucket {
    let first = name.get(..2).and_then(|digits| Bucket::from_str_radix(digits, 16).ok());
    first.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_beginning_of_the_hash() {
        // encode(sha256(convert_to('é', 'UTF8')), 'hex')
        let name = name_of(&Key::new("\u{e9}").unwrap());
        assert_eq!((name.as_str(), bucket_of(&name)), ("4a99557e4033c353", 0x4a));
    }
}

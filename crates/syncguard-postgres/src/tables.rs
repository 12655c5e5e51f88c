//! The names of the tables, and of all that belongs to them.

use syncguard_core::{Error, ErrorCode, Operation, Result};

pub(crate) const LOCK_TABLE: &str = "syncguard_locks";
pub(crate) const FENCE_TABLE: &str = "syncguard_fence_counters";

/// The longest name that Postgres does not cut off, in bytes.
const NAME_LIMIT: usize = 63;

/// The names of all tables and indexes, checked and quoted.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) locks: String,
    pub(crate) fences: String,
    pub(crate) lock_id_index: String,
    pub(crate) expires_index: String,
    /// The trigger and its function.
    pub(crate) freed: String,
    /// The same name without quotes, which is also that of the channel.
    pub(crate) channel: String,
}

impl Tables {
    pub(crate) fn new(locks: &str, fences: &str) -> Result<Self> {
        let tables = Self::quoted(locks, fences);
        let names = [&tables.locks, &tables.fences, &tables.lock_id_index, &tables.expires_index];
        for (n, name) in names.iter().enumerate() {
            let bare = name.trim_matches('"');
            if !is_identifier(bare) {
                return Err(invalid(
                    "a table name is letters, digits and underscores, and starts with no digit",
                ));
            }
            if bare.len() > NAME_LIMIT {
                return Err(invalid(
                    "a table name is too long: with its indexes, 51 bytes for locks and 63 for fences",
                ));
            }
            if names.iter().skip(n + 1).any(|other| other == name) {
                return Err(invalid("the tables and indexes must have different names"));
            }
        }
        Ok(tables)
    }

    fn quoted(locks: &str, fences: &str) -> Self {
        Self {
            locks: format!("\"{locks}\""),
            fences: format!("\"{fences}\""),
            lock_id_index: format!("\"idx_{locks}_lock_id\""),
            expires_index: format!("\"idx_{locks}_expires\""),
            freed: format!("\"{locks}_freed\""),
            channel: format!("{locks}_freed"),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::quoted(LOCK_TABLE, FENCE_TABLE)
    }
}

fn is_identifier(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_table_names_are_identifiers() {
        for name in ["a", "_", "Locks_2", &"x".repeat(51)] {
            assert!(Tables::new(name, "fences").is_ok(), "{name}");
        }
        for name in ["", "2locks", "a-b", "a.b", "a b", "a\"b", "a;b", "l\u{f6}cks", "a\0", "a\n"] {
            assert!(Tables::new(name, "fences").is_err(), "{name:?}");
            assert!(Tables::new("locks", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn e3_no_name_is_cut_off() {
        assert!(Tables::new(&"x".repeat(51), &"y".repeat(63)).is_ok());
        assert!(Tables::new(&"x".repeat(52), "fences").is_err());
        assert!(Tables::new("locks", &"y".repeat(64)).is_err());
    }

    #[test]
    fn e3_names_must_not_collide() {
        assert!(Tables::new("locks", "locks").is_err());
        assert!(Tables::new("locks", "idx_locks_lock_id").is_err());
        assert!(Tables::new("locks", "idx_locks_expires").is_err());
        assert!(Tables::new("locks", "LOCKS").is_ok());
    }

    #[test]
    fn the_default_names_pass_the_check() {
        let checked = Tables::new(LOCK_TABLE, FENCE_TABLE).unwrap();
        assert_eq!(checked.locks, Tables::default().locks);
    }
}

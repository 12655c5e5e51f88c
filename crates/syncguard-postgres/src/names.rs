//! The names of the tables, and of everything that belongs to them.

use syncguard_core::{Error, ErrorCode, Operation, Result};

pub(crate) const LOCK_TABLE: &str = "syncguard_locks";
pub(crate) const FENCE_TABLE: &str = "syncguard_fence_counters";
const LEADER_TABLE: &str = "syncguard_leaders";

/// The longest name that Postgres does not cut off, in bytes.
const NAME_LIMIT: usize = 63;

/// The names of all tables and indexes, checked and quoted.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The schema without quotes. If there is none, the `search_path` of the session decides.
    pub(crate) schema: Option<String>,
    pub(crate) locks: String,
    pub(crate) fences: String,
    pub(crate) leaders: String,
    /// The names of the indexes, without the schema: an index is in the schema of its table.
    pub(crate) lock_id_index: String,
    pub(crate) expires_index: String,
    /// The trigger, without the schema: a trigger belongs to its table.
    pub(crate) trigger: String,
    /// The function of the trigger.
    pub(crate) freed: String,
    /// The name of the trigger without quotes, which is also that of the channel. It is the same for
    /// all schemas: clients that name the schema share the channel with clients that do not.
    pub(crate) channel: String,
}

impl Names {
    pub(crate) fn new(
        schema: Option<&str>,
        locks: &str,
        fences: &str,
        leaders: &str,
    ) -> Result<Self> {
        let names = Self::quoted(schema, locks, fences, leaders);
        let bare = [locks, fences, leaders, &names.lock_id_index, &names.expires_index];
        let bare = bare.map(|name| name.trim_matches('"'));
        for (n, name) in bare.iter().enumerate() {
            if !is_identifier(name) {
                return Err(invalid(
                    "a table name is letters, digits and underscores, and starts with no digit; \
                     name the schema with PostgresBackendBuilder::schema",
                ));
            }
            if name.len() > NAME_LIMIT {
                return Err(invalid(
                    "a table name is too long: with its indexes, 51 bytes for locks and 63 for the others",
                ));
            }
            if bare.iter().skip(n + 1).any(|other| other == name) {
                return Err(invalid("the tables and indexes must have different names"));
            }
        }
        if schema.is_some_and(|schema| !is_identifier(schema) || schema.len() > NAME_LIMIT) {
            return Err(invalid(
                "the name of a schema is at most 63 letters, digits and underscores, and starts with \
                 no digit",
            ));
        }
        Ok(names)
    }

    fn quoted(schema: Option<&str>, locks: &str, fences: &str, leaders: &str) -> Self {
        let in_schema = |name: &str| match schema {
            Some(schema) => format!("\"{schema}\".\"{name}\""),
            None => format!("\"{name}\""),
        };
        Self {
            schema: schema.map(str::to_owned),
            locks: in_schema(locks),
            fences: in_schema(fences),
            leaders: in_schema(leaders),
            lock_id_index: format!("\"idx_{locks}_lock_id\""),
            expires_index: format!("\"idx_{locks}_expires\""),
            trigger: format!("\"{locks}_freed\""),
            freed: in_schema(&format!("{locks}_freed")),
            channel: format!("{locks}_freed"),
        }
    }

    /// The name of the lock table without quotes and schema.
    pub(crate) fn lock_table(&self) -> &str {
        self.channel.strip_suffix("_freed").unwrap_or_default()
    }

    /// The name of an index with the schema, to find it.
    pub(crate) fn in_schema(&self, index: &str) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".{index}"),
            None => index.to_owned(),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::quoted(None, LOCK_TABLE, FENCE_TABLE, LEADER_TABLE)
    }
}

/// The table of leaders beside a lock table. Each lock table has one of its own, because the same key
/// may have different leaders in two lock tables.
pub(crate) fn leader_table(locks: &str) -> String {
    if locks == LOCK_TABLE { LEADER_TABLE.to_owned() } else { format!("{locks}_leaders") }
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

    const NO_IDENTIFIERS: [&str; 10] =
        ["", "2locks", "a-b", "a.b", "a b", "a\"b", "a;b", "l\u{f6}cks", "a\0", "a\n"];

    fn names(locks: &str, fences: &str) -> Result<Names> {
        Names::new(None, locks, fences, &leader_table(locks))
    }

    #[test]
    fn e3_table_names_are_identifiers() {
        for name in ["a", "_", "Locks_2", &"x".repeat(51)] {
            assert!(names(name, "fences").is_ok(), "{name}");
        }
        for name in NO_IDENTIFIERS {
            assert!(names(name, "fences").is_err(), "{name:?}");
            assert!(names("locks", name).is_err(), "{name:?}");
            assert!(Names::new(None, "locks", "fences", name).is_err(), "{name:?}");
            assert!(Names::new(Some(name), "locks", "fences", "leaders").is_err(), "{name:?}");
        }
    }

    #[test]
    fn e3_no_name_is_cut_off() {
        assert!(names(&"x".repeat(51), &"y".repeat(63)).is_ok());
        assert!(names(&"x".repeat(52), "fences").is_err());
        assert!(names("locks", &"y".repeat(64)).is_err());
        assert!(Names::new(Some(&"s".repeat(63)), "locks", "fences", "leaders").is_ok());
        assert!(Names::new(Some(&"s".repeat(64)), "locks", "fences", "leaders").is_err());
    }

    #[test]
    fn e3_names_must_not_collide() {
        assert!(names("locks", "locks").is_err());
        assert!(names("locks", "idx_locks_lock_id").is_err());
        assert!(names("locks", "idx_locks_expires").is_err());
        assert!(names("locks", "locks_leaders").is_err());
        assert!(Names::new(None, "locks", "fences", "locks").is_err());
        assert!(names("locks", "LOCKS").is_ok());
    }

    #[test]
    fn the_default_names_pass_the_check() {
        let checked = names(LOCK_TABLE, FENCE_TABLE).unwrap();
        assert_eq!(checked.locks, Names::default().locks);
        assert_eq!(checked.leaders, "\"syncguard_leaders\"");
    }

    #[test]
    fn a_schema_is_part_of_every_name_but_those_of_indexes_and_channel() {
        let names = Names::new(Some("App"), "l", "f", &leader_table("l")).unwrap();
        assert_eq!(
            [names.locks.as_str(), &names.fences, &names.freed, &names.in_schema("\"i\"")],
            ["\"App\".\"l\"", "\"App\".\"f\"", "\"App\".\"l_freed\"", "\"App\".\"i\""]
        );
        assert_eq!(names.leaders, "\"App\".\"l_leaders\"");
        assert_eq!([names.trigger.as_str(), &names.channel], ["\"l_freed\"", "l_freed"]);
    }
}

//! The names of collections and documents.

use syncguard_core::{InvalidPrefix, Key, KeySpace, Result};

/// The longest name of a collection or a document, in bytes.
const MAX_NAME: usize = 1_500;

/// The database, its collections, and how documents are named.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// `projects/{project}/databases/{database}`
    pub(crate) database: String,
    /// The prefix of every document name.
    pub(crate) root: String,
    pub(crate) locks: String,
    fences: String,
    leaders: String,
    space: KeySpace,
}

/// The full names of the two documents of a lock.
pub(crate) struct Pair {
    pub(crate) lock: String,
    pub(crate) fence: String,
}

impl Names {
    pub(crate) fn new(
        project: &str,
        database: &str,
        locks: &str,
        fences: &str,
        leaders: &str,
    ) -> Result<Self, InvalidPrefix> {
        let database = format!("projects/{project}/databases/{database}");
        Ok(Self {
            root: format!("{database}/documents"),
            database,
            locks: locks.to_owned(),
            fences: fences.to_owned(),
            leaders: leaders.to_owned(),
            space: KeySpace::new("", MAX_NAME, 0)?,
        })
    }

    /// Returns the name of a document for checks. Nothing is ever stored there.
    pub(crate) fn probe(&self, what: &str) -> String {
        format!("{}/{}/syncguard-probe-{what}", self.root, self.locks)
    }

    pub(crate) fn of(&self, key: &Key) -> Pair {
        let base = self.base(key);
        Pair {
            fence: format!("{}/{}/{}", self.root, self.fences, self.space.fence_key(&base)),
            lock: format!("{}/{}/{base}", self.root, self.locks),
        }
    }

    /// Returns the name of the document for what the leader of a key publishes.
    pub(crate) fn leader(&self, key: &Key) -> String {
        format!("{}/{}/{}", self.root, self.leaders, self.base(key))
    }

    fn base(&self, key: &Key) -> String {
        let base = self.space.base_key(key);
        if is_legal_name(&base) { base } else { self.space.hashed_base_key(key) }
    }
}

pub(crate) const LOCKS: &str = "locks";

/// The collection of leaders beside a collection of locks. Each has one of its own, because the same
/// key may have different leaders in two collections of locks.
pub(crate) fn leader_collection(locks: &str) -> String {
    if locks == LOCKS { "leaders".to_owned() } else { format!("{locks}_leaders") }
}

/// Returns whether Firestore accepts this text as the name of a collection or a document.
pub(crate) fn is_legal_name(name: &str) -> bool {
    let reserved = name.len() >= 4 && name.starts_with("__") && name.ends_with("__");
    !(name.is_empty()
        || name.len() > MAX_NAME
        || name.contains('/')
        || name == "."
        || name == ".."
        || reserved)
}

#[cfg(test)]
mod tests {
    use syncguard_core::LockId;

    use super::*;

    fn names() -> Names {
        Names::new("p", "(default)", "locks", "fence_counters", "leaders").unwrap()
    }

    #[test]
    fn k3_documents_are_named_by_the_key() {
        let pair = names().of(&Key::new("cafe\u{301}").unwrap());
        let root = "projects/p/databases/(default)/documents";
        assert_eq!(pair.lock, format!("{root}/locks/caf\u{e9}"));
        assert_eq!(pair.fence, format!("{root}/fence_counters/fence:caf\u{e9}"));
        let leader = names().leader(&Key::new("caf\u{e9}").unwrap());
        assert_eq!(leader, format!("{root}/leaders/caf\u{e9}"));
    }

    #[test]
    fn k3_keys_that_are_no_legal_names_are_hashed() {
        let base = |key: &str| {
            let pair = names().of(&Key::new(key).unwrap());
            let base = pair.lock.rsplit_once("/locks/").unwrap().1.to_owned();
            assert!(pair.fence.ends_with(&format!("/fence:{base}")));
            assert!(names().leader(&Key::new(key).unwrap()).ends_with(&format!("/leaders/{base}")));
            base
        };
        for key in ["a/b", "/", ".", "..", "____", "__x__", "__id7__", "trail/"] {
            let hashed = base(key);
            assert!(hashed.parse::<LockId>().is_ok(), "{key}: {hashed}");
            assert!(is_legal_name(&hashed));
        }
        for key in ["___", "__x", "x__", "...", "a.b", "`[x]` ~*", "\u{1f512}"] {
            assert_eq!(base(key), key);
        }
        assert_ne!(base("a/b"), base("a/c"));
    }

    #[test]
    fn k3_names_follow_the_golden_vectors() {
        let all: serde_json::Value =
            serde_json::from_str(include_str!("../../syncguard-core/tests/golden/vectors.json"))
                .unwrap();
        let mut seen = 0;
        for vector in all["storage_keys"].as_array().unwrap() {
            let of = |field: &str| vector[field].as_str().unwrap();
            if vector["backend"] != "firestore" || !is_legal_name(of("base_key")) {
                continue;
            }
            let pair = names().of(&Key::new(of("key")).unwrap());
            assert!(pair.lock.ends_with(&format!("/locks/{}", of("base_key"))));
            assert!(pair.fence.ends_with(&format!("/fence_counters/{}", of("fence_key"))));
            seen += 1;
        }
        assert!(seen > 5, "{seen}");
    }
}

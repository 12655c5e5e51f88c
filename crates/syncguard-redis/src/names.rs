//! The names of what is stored for a lock, and the prefixes that can be used.

use syncguard_core::{Error, ErrorCode, Key, KeySpace, LockId, Operation, Result};

/// The longest name in bytes, and how much of it other clients keep free.
const LIMIT: usize = 1_000;
const RESERVE: usize = 26;

#[derive(Clone, Debug)]
pub(crate) struct Names {
    space: KeySpace,
    /// What the user keys begin with that would land on a fence counter. None where no user key
    /// can be as long as that.
    counters: Option<Key>,
}

impl Names {
    /// The names behind a prefix. In a cluster, all of them must share a hash slot.
    pub(crate) fn new(prefix: &str, clustered: bool) -> Result<Self> {
        let refused = |message| {
            Err(Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(message))
        };
        if prefix.contains("fence:") || prefix.ends_with("fence") {
            return refused("the key prefix must not contain \"fence:\" or end with \"fence\"");
        }
        if clustered && !has_hash_tag(prefix) {
            return refused(
                "in a cluster the key prefix needs a hash tag, as in \"{syncguard}\", \
                 so that the keys of a lock share a slot",
            );
        }
        let space = KeySpace::new(prefix, LIMIT, RESERVE)?;
        let counters = Key::new(&format!("fence:{}", space.prefix())).ok();
        Ok(Self { space, counters })
    }

    /// What every name begins with. Alone it is no name: no user key is empty.
    pub(crate) fn prefix(&self) -> &str {
        self.space.prefix()
    }

    /// Where the lock of a key is stored.
    ///
    /// A user key that reads like the name of an index or of a fence counter is refused: it would
    /// share the place of one.
    pub(crate) fn lock(&self, key: &Key, operation: Operation) -> Result<String> {
        let index = key.as_str().strip_prefix("id:");
        let is_index = index.is_some_and(|rest| rest.parse::<LockId>().is_ok());
        let counters = self.counters.as_ref();
        let is_counter = counters.is_some_and(|prefix| key.as_str().starts_with(prefix.as_str()));
        if is_index || is_counter {
            return Err(Error::new(ErrorCode::InvalidArgument, operation)
                .with_key(key)
                .with_message("the key has the form of a name that locks are kept under"));
        }
        Ok(self.space.base_key(key))
    }

    /// Where the name of the lock with this id is stored.
    pub(crate) fn index(&self, id: &LockId) -> String {
        self.space.id_key(id)
    }

    /// Where what the leader of a key publishes is stored.
    pub(crate) fn publication(&self, key: &Key, operation: Operation) -> Result<String> {
        Ok(self.space.publication_key(&self.lock(key, operation)?))
    }

    /// Where the fence counter of a lock is stored.
    pub(crate) fn counter(&self, lock: &str) -> String {
        self.space.fence_key(lock)
    }
}

/// Whether a cluster hashes only a part of the prefix: what stands between its first `{` and the
/// next `}`, if that is not empty.
fn has_hash_tag(prefix: &str) -> bool {
    prefix
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str) -> Names {
        Names::new(prefix, false).unwrap()
    }

    fn code(prefix: &str, clustered: bool) -> Option<ErrorCode> {
        Names::new(prefix, clustered).err().map(|error| error.code())
    }

    #[test]
    fn e3_prefixes_that_are_refused() {
        let invalid = Some(ErrorCode::InvalidArgument);
        for bad in ["fence:", "my-fence:locks", "fence", "my-fence"] {
            assert_eq!(code(bad, false), invalid, "{bad}");
        }
        for good in ["", "fences", "syncguard", "a:b:", "{sg}"] {
            assert_eq!(code(good, false), None, "{good}");
        }
        assert_eq!(code(&"p".repeat(951), false), None);
        assert_eq!(code(&"p".repeat(952), false), invalid);
    }

    #[test]
    fn e3_a_cluster_needs_a_hash_tag() {
        for bad in ["", "syncguard", "{}", "{}{a}", "a}b{c", "{a"] {
            assert_eq!(code(bad, true), Some(ErrorCode::InvalidArgument), "{bad}");
        }
        for good in ["{syncguard}", "app:{1}:locks", "{{}"] {
            assert_eq!(code(good, true), None, "{good}");
        }
    }

    #[test]
    fn a_tagged_prefix_keeps_all_names_in_one_slot() {
        let names = Names::new("{sg}", true).unwrap();
        let long = format!("{{x}}{}", "k".repeat(500));
        for key in ["resource:123", "a{b}c", "}{", long.as_str()] {
            let lock = names.lock(&Key::new(key).unwrap(), Operation::Acquire).unwrap();
            let index = names.index(&LockId::random().unwrap());
            let slot = fred::util::redis_keyslot;
            assert_eq!(slot(lock.as_bytes()), slot(b"sg"));
            assert_eq!(slot(index.as_bytes()), slot(b"sg"));
            assert_eq!(slot(names.counter(&lock).as_bytes()), slot(b"sg"));
            let publication = names.publication(&Key::new(key).unwrap(), Operation::Publish);
            assert_eq!(slot(publication.unwrap().as_bytes()), slot(b"sg"));
        }
    }

    #[test]
    fn k3_user_keys_never_land_on_a_derived_name() {
        let code = |prefix: &str, key: &str| {
            let lock = names(prefix).lock(&Key::new(key).unwrap(), Operation::Acquire);
            lock.err().map(|error| error.code())
        };
        let id = "AAECAwQFBgcICQoLDA0ODw";
        let invalid = Some(ErrorCode::InvalidArgument);
        assert_eq!(code("syncguard", &format!("id:{id}")), invalid);
        assert_eq!(code("syncguard", "fence:syncguard:foo"), invalid);
        assert_eq!(code("", "fence:foo"), invalid);
        assert_eq!(code("caf\u{65}\u{301}", "fence:caf\u{e9}:foo"), invalid);
        assert_eq!(code("syncguard", &format!("id:{id}x")), None);
        assert_eq!(code("syncguard", "id:short"), None);
        assert_eq!(code("syncguard", "fence:foo"), None);
        assert_eq!(code("syncguard", "fence:other:foo"), None);
    }
}

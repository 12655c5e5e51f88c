//! The Lua scripts: put together from their parts, and called in one round trip.
//!
//! The parts share these locals, which `clock.lua` and `by_key.lua` or `by_id.lua` begin with:
//!
//! | local | |
//! |---|---|
//! | `call` | `redis.call` |
//! | `lock`, `index` | the names of both |
//! | `ttl` | in ms, as text, where the caller asks for one |
//! | `head`, or `id` | whose lease it is: what the caller names it by, the other one is nil |
//! | `now` | the server's time, in ms |
//! | `text` | what is stored for the lock, or nil |
//! | `digits` | those of the expiry at the end of the text, if it is in the usual writing |
//! | `expires` | the expiry in ms, as far as it is known without decoding |
//! | `mine` | whether the record has the caller's key and id |
//!
//! From `decode.lua` on, `expires` and `mine` hold for any writing, and there is
//!
//! | local | |
//! |---|---|
//! | `record` | the decoded record, if it had to be decoded |
//! | `live` | whether the record is live now |

use std::ptr;
use std::sync::OnceLock;

use fred::bytes_utils::Str;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};
use syncguard_core::{Fence, LockId, TOLERANCE};

const CLOCK: &str = include_str!("operations/clock.lua");
const BY_KEY: &str = include_str!("operations/by_key.lua");
const BY_ID: &str = include_str!("operations/by_id.lua");
const DECODE: &str = include_str!("operations/decode.lua");
const HELD: &str = include_str!("operations/held.lua");
const INDEX: &str = include_str!("operations/index.lua");
const RENEW: &str = include_str!("operations/renew.lua");
const GRANT: &str = include_str!("operations/grant.lua");
const HAND_OVER_MINE: &str = include_str!("operations/handoff.lua");
const HANDED_OVER: &str = include_str!("operations/handed_off.lua");
const RELEASE_MINE: &str = include_str!("operations/release.lua");
const RECORD: &str = "return text\n";
const OUTRANKED: &str = include_str!("operations/outranked.lua");

/// Keys: lock, index, fence counter. Arguments: head, TTL. Answers with the record, or with the
/// milliseconds for which somebody else still holds the key.
pub(crate) static ACQUIRE: Script =
    Script::new(3, 2, &[CLOCK, BY_KEY, DECODE, HELD, INDEX, RENEW, GRANT, RECORD]);
/// Keys: lock, index. Arguments: head, TTL. Answers with the record, or nil.
pub(crate) static EXTEND: Script = Script::new(2, 2, &[CLOCK, BY_KEY, DECODE, INDEX, RENEW]);
/// Keys: lock, index, fence counter, next index. Arguments: head, TTL, next head. Answers with the
/// next record, or nil.
pub(crate) static HAND_OVER: Script =
    Script::new(4, 3, &[CLOCK, BY_KEY, DECODE, INDEX, HAND_OVER_MINE, GRANT, HANDED_OVER, RECORD]);
/// Keys: lock, index. Arguments: head, how to tell of it. Answers with one, or nil.
pub(crate) static RELEASE: Script =
    Script::new(2, 2, &[CLOCK, BY_KEY, DECODE, INDEX, RELEASE_MINE]);
/// Keys: index, prefix. Arguments: id, TTL. Answers with the record, or nil.
pub(crate) static EXTEND_BY_ID: Script = Script::new(2, 2, &[CLOCK, BY_ID, DECODE, RENEW]);
/// Keys: index, prefix. Arguments: id, how to tell of it. Answers with one, or nil.
pub(crate) static RELEASE_BY_ID: Script = Script::new(2, 2, &[CLOCK, BY_ID, DECODE, RELEASE_MINE]);
/// Keys: lock. Answers with the record, seconds and microseconds, or nil.
pub(crate) static GET: Script = Script::new(1, 0, &[include_str!("operations/get.lua")]);
/// Keys: index, prefix. Answers as [`GET`].
pub(crate) static FIND: Script = Script::new(2, 0, &[include_str!("operations/find.lua")]);

/// Keys: publication. Arguments: fence, candidate, value, TTL. Answers with one, or nil.
pub(crate) static PUBLISH: Script =
    Script::new(1, 4, &[OUTRANKED, include_str!("operations/publish.lua")]);
/// Keys: publication. Arguments: fence. Answers with nil.
pub(crate) static WITHDRAW: Script =
    Script::new(1, 1, &[OUTRANKED, include_str!("operations/withdraw.lua")]);
/// Keys: publication. Answers with the three fields, each of which may be nil.
pub(crate) static PUBLISHED: Script =
    Script::new(1, 0, &[include_str!("operations/published.lua")]);

/// Keys and arguments of many of the others: see `many.lua`.
pub(crate) static MANY: Script = Script {
    keys: 0,
    args: 0,
    parts: &[include_str!("operations/many.lua")],
    functions: &[
        ("acquire", &ACQUIRE),
        ("extend", &EXTEND),
        ("handoff", &HAND_OVER),
        ("release", &RELEASE),
        ("extend_by_id", &EXTEND_BY_ID),
        ("release_by_id", &RELEASE_BY_ID),
        ("get", &GET),
        ("find", &FIND),
        ("publish", &PUBLISH),
        ("withdraw", &WITHDRAW),
        ("published", &PUBLISHED),
    ],
    loaded: OnceLock::new(),
};

/// Where the first key stands among the words of a call, which tells a cluster's node.
pub(crate) const FIRST_KEY: ClusterHash = ClusterHash::Offset(2);

/// One script.
pub(crate) struct Script {
    /// How many keys and arguments it has. [`MANY`] has as many as its operations.
    keys: usize,
    args: usize,
    parts: &'static [&'static str],
    /// Other scripts, which the parts can run by name.
    functions: &'static [(&'static str, &'static Self)],
    loaded: OnceLock<Loaded>,
}

struct Loaded {
    source: Str,
    /// The hash of the source, by which the server keeps it.
    sha: Str,
}

impl Script {
    const fn new(keys: usize, args: usize, parts: &'static [&'static str]) -> Self {
        Self { keys, args, parts, functions: &[], loaded: OnceLock::new() }
    }

    /// Runs the script: one round trip, or two when the server does not know it yet.
    ///
    /// The command is a custom one because fred drops the options of `EVALSHA`: without them it
    /// would wait for ever and send the script again after a lost connection. The options must say
    /// where the [`FIRST_KEY`] stands, since fred drops that of a custom command.
    pub(crate) async fn call(
        &self,
        client: &Client,
        options: &Options,
        keys: &[Str],
        args: &[Value],
    ) -> Result<Value, Error> {
        debug_assert!(!self.functions.is_empty() || self.takes(keys.len(), args.len()));
        let Loaded { source, sha } = self.loaded();
        let client = client.with_options(options);
        let send = |name, script: &Str| {
            let numbers = [script.clone(), Str::from(keys.len().to_string())];
            let keys = numbers.iter().chain(keys).cloned().map(Value::String);
            let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
            client.custom(command, keys.chain(args.iter().cloned()).collect())
        };
        match send("EVALSHA", sha).await {
            // Nothing was run.
            Err(error) if error.details().starts_with("NOSCRIPT") => send("EVAL", source).await,
            answer => answer,
        }
    }

    fn loaded(&self) -> &Loaded {
        self.loaded.get_or_init(|| {
            let source = self.source();
            Loaded { sha: Str::from(fred::util::sha1_hash(&source)), source: Str::from(source) }
        })
    }

    /// Whether it has so many keys and arguments. Others would shift those of the next operation.
    pub(crate) const fn takes(&self, keys: usize, args: usize) -> bool {
        self.keys == keys && self.args == args
    }

    /// The name by which [`MANY`] knows this script.
    pub(crate) fn name(&self) -> Option<&'static str> {
        MANY.functions.iter().find(|(_, script)| ptr::eq(*script, self)).map(|(name, _)| *name)
    }

    /// The text, with the constants of the contract filled in.
    fn source(&self) -> String {
        let mut text = String::new();
        if !self.functions.is_empty() {
            // All operations see the time, which is read once.
            text += CLOCK;
            text += &self.run_function();
        }
        (text + &self.parts.concat())
            .replace("@ID@", &"[%w_-]".repeat(LockId::LEN))
            .replace("@FENCE@", &"%d".repeat(15))
            .replace("@MAX_FENCE@", &Fence::MAX_GRANTED.get().to_string())
            .replace("@TOLERANCE_MS@", &TOLERANCE.as_millis().to_string())
    }

    /// The other scripts as one function. A function for each of them, with tables for its keys and arguments,
    /// costs the server more. `key` is the place of its first key, `arg` that of its name.
    fn run_function(&self) -> String {
        let mut text = "local function run(name, key, arg)\n".to_owned();
        for (name, script) in self.functions {
            let body: String = script.parts.iter().copied().filter(|part| *part != CLOCK).collect();
            text += &format!("if name == '{name}' then\n{}end\n", at_its_place(&body));
        }
        let counts = |count: fn(&Self) -> usize| {
            let each =
                self.functions.iter().map(|(name, script)| format!("{name} = {}", count(script)));
            each.collect::<Vec<_>>().join(", ")
        };
        let (keys, args) = (counts(|script| script.keys), counts(|script| script.args));
        text + &format!("end\nlocal keys = {{{keys}}}\nlocal args = {{{args}}}\n")
    }
}

/// Rewrites a script that has the call to itself for one of many operations.
fn at_its_place(script: &str) -> String {
    let script = script.replace("KEYS[1]", "KEYS[key]");
    (1..=4).fold(script, |script, n| {
        let keys = script.replace(&format!("KEYS[{}]", n + 1), &format!("KEYS[key + {n}]"));
        keys.replace(&format!("ARGV[{n}]"), &format!("ARGV[arg + {n}]"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every script, by the name of its snapshot.
    fn scripts() -> [(&'static str, &'static Script); 12] {
        [
            ("many", &MANY),
            ("acquire", &ACQUIRE),
            ("extend", &EXTEND),
            ("extend_by_id", &EXTEND_BY_ID),
            ("find", &FIND),
            ("get", &GET),
            ("handoff", &HAND_OVER),
            ("publish", &PUBLISH),
            ("published", &PUBLISHED),
            ("release", &RELEASE),
            ("release_by_id", &RELEASE_BY_ID),
            ("withdraw", &WITHDRAW),
        ]
    }

    #[test]
    fn every_constant_is_filled_in() {
        for (name, script) in scripts() {
            assert!(!script.source().contains('@'), "{name}");
        }
        assert!(ACQUIRE.source().contains("fence > 900000000000000 "));
        let many = MANY.source();
        let own = (1..=9).flat_map(|n| [format!("KEYS[{n}]"), format!("ARGV[{n}]")]);
        assert!(own.into_iter().all(|own| !many.contains(&own)), "of the whole call");
        assert!(ACQUIRE.source().contains("now - 1000\n"));
    }

    /// The snapshots show each script whole. To write them after a change, run this test with
    /// `UPDATE_SNAPSHOTS=1`.
    #[test]
    fn scripts_are_sent_as_their_snapshots_show_them() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
        for (name, script) in scripts() {
            let path = directory.join(format!("{name}.lua"));
            if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
                std::fs::write(&path, script.source()).unwrap();
            }
            let snapshot = std::fs::read_to_string(&path).unwrap();
            assert_eq!(script.source(), snapshot, "{name}");
        }
    }
}

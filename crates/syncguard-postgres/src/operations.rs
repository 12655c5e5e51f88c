//! The statements of a backend.

mod protocol;
mod statement;
mod value;

use std::sync::Arc;

use syncguard_core::Fence;

pub(crate) use self::protocol::Protocol;
pub(crate) use self::statement::Statement;
pub(crate) use self::value::{Value, millis, patience};
use crate::names::Names;

/// The statements, with the names of the tables filled in.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) acquire: Statement,
    /// As `acquire`, but says that the key is busy where that one waits for others.
    pub(crate) acquire_at_once: Statement,
    pub(crate) acquire_many: Statement,
    pub(crate) extend: Statement,
    /// As `extend`, but finds no lease where that one waits for others.
    pub(crate) extend_at_once: Statement,
    pub(crate) extend_many: Statement,
    pub(crate) extend_by_id: Statement,
    pub(crate) release: Statement,
    /// As `release`, but finds no lease where that one waits for others.
    pub(crate) release_at_once: Statement,
    pub(crate) release_many: Statement,
    pub(crate) release_by_id: Statement,
    pub(crate) handoff: Statement,
    pub(crate) get: Statement,
    pub(crate) find: Statement,
    pub(crate) publish: Statement,
    pub(crate) withdraw: Statement,
    pub(crate) published: Statement,
    pub(crate) purge: Statement,
    pub(crate) preflight: Statement,
    pub(crate) protocol: Protocol,
}

impl Statements {
    pub(crate) fn new(names: &Names, protocol: Protocol) -> Self {
        let statement = |template: &str| Statement { text: render(template, names), protocol };
        // An index of random ids stays large where many leases came and went, and the planner then
        // takes it for cheaper to read a table of few rows from end to end, however large that is
        // by now. The keys stay the same, and so does their index: where the key is known, it finds
        // the row.
        let by_id = |template: &str| statement(&template.replace("{the_lease}", "l.lock_id = $1"));
        let by_key = |template: &str, key: &str| {
            let lease = format!("l.key = {key} AND l.lock_id = $1");
            statement(&template.replace("{the_lease}", &lease))
        };
        let acquire = include_str!("operations/sql/acquire.sql");
        let waits = |template: &str| {
            template
                .replace("{turn}", WAIT_FOR_THE_LEASE)
                .replace("{lock_the_row}", "FOR UPDATE OF l")
        };
        let at_once = |template: &str| {
            let lock_the_row = "FOR UPDATE OF l SKIP LOCKED";
            template.replace("{turn}", TRY_THE_LEASE).replace("{lock_the_row}", lock_the_row)
        };
        let (extend, release) =
            (include_str!("operations/sql/extend.sql"), include_str!("operations/sql/release.sql"));
        let look_up = include_str!("operations/sql/look_up.sql");
        Self {
            acquire: statement(&acquire.replace("{turn}", WAIT_FOR_THE_TURN)),
            acquire_at_once: statement(&acquire.replace("{turn}", TRY_THE_TURN)),
            acquire_many: statement(include_str!("operations/sql/acquire_many.sql")),
            extend: by_key(&waits(extend), "$4"),
            extend_at_once: by_key(&at_once(extend), "$4"),
            extend_many: statement(include_str!("operations/sql/extend_many.sql")),
            extend_by_id: by_id(&waits(extend)),
            release: by_key(&waits(release), "$4"),
            release_at_once: by_key(&at_once(release), "$4"),
            release_many: statement(include_str!("operations/sql/release_many.sql")),
            release_by_id: by_id(&waits(release)),
            handoff: by_key(include_str!("operations/sql/handoff.sql"), "$5"),
            get: statement(&look_up.replace("{by}", "key")),
            find: statement(&look_up.replace("{by}", "lock_id")),
            publish: statement(include_str!("operations/sql/publish.sql")),
            withdraw: statement(include_str!("operations/sql/withdraw.sql")),
            published: statement(include_str!("operations/sql/published.sql")),
            purge: statement(include_str!("operations/sql/purge.sql")),
            preflight: statement(include_str!("operations/sql/preflight.sql")),
            protocol,
        }
    }
}

const WAIT_FOR_THE_TURN: &str = "SELECT pg_advisory_xact_lock(hashtext($1)) FROM patience \
    WHERE NOT EXISTS (SELECT FROM held)";

/// OFFSET keeps the planner from taking the lock of a held key first.
const TRY_THE_TURN: &str = "SELECT FROM \
    (SELECT FROM patience WHERE NOT EXISTS (SELECT FROM held) OFFSET 0) AS free \
    WHERE pg_try_advisory_xact_lock(hashtext($1))";

const WAIT_FOR_THE_LEASE: &str =
    "SELECT pg_advisory_xact_lock(hashtext(key)) FROM patience, {locks} AS l WHERE {the_lease}";

/// OFFSET keeps the planner from taking the lock of another key first.
const TRY_THE_LEASE: &str = "SELECT FROM \
    (SELECT key FROM patience, {locks} AS l WHERE {the_lease} OFFSET 0) AS found \
    WHERE pg_try_advisory_xact_lock(hashtext(key))";

/// Fills in the names, and drops the comments, which are for readers of this crate.
fn render(template: &str, names: &Names) -> Arc<str> {
    let lines = template.lines().map(str::trim);
    let code: Vec<_> = lines.filter(|line| !line.starts_with("--")).collect();
    fill_in(&code.join(" "), names).into()
}

/// Fills in the names.
pub(crate) fn fill_in(template: &str, names: &Names) -> String {
    template
        .replace("{locks}", &names.locks)
        .replace("{fences}", &names.fences)
        .replace("{leaders}", &names.leaders)
        .replace("{lock_id_index}", &names.lock_id_index)
        .replace("{expires_index}", &names.expires_index)
        .replace("{trigger}", &names.trigger)
        .replace("{freed}", &names.freed)
        .replace("{channel}", &names.channel)
        .replace("{now}", NOW)
        .replace("{max_fence}", &Fence::MAX_GRANTED.get().to_string())
        .replace("{last_fence}", &Fence::MAX.get().to_string())
}

/// The server's clock as it is now, not as it was when the transaction began, in whole milliseconds.
const NOW: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_filled_in() {
        let statements = Statements::new(&Names::default(), Protocol::Prepared);
        let text = format!("{statements:?}");
        let names =
            ["{locks}", "{leaders}", "{last_fence}", "{now}", "{the_lease}", "{turn}", "--"];
        assert!(names.iter().all(|name| !text.contains(name)), "{text}");
    }
}

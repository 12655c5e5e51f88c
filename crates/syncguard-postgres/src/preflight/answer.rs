//! What the answer to `preflight.sql` means.

use sqlx::Row;
use sqlx::postgres::PgRow;
use syncguard_core::{Finding, Level};

use super::pooler::unasked;
use crate::PostgresBackend;

/// The names of the checks, in their order.
pub(super) const CHECKS: [&str; 12] = [
    "server-version",
    "primary",
    "read-only",
    "isolation-level",
    "synchronous-commit",
    "search-path",
    "tables",
    "indexes",
    "privileges",
    "connection-headroom",
    "long-transactions",
    "leader-table",
];

/// The findings in the order of [`CHECKS`]. The columns are those of `preflight.sql`.
pub(super) fn judge(backend: &PostgresBackend, row: &PgRow) -> sqlx::Result<Vec<Finding>> {
    let [_, primary, read_only, isolation, commit, path, tables, indexes, privileges, headroom, ..] =
        CHECKS;

    let number: i32 = row.try_get(0)?;
    let standby: bool = row.try_get(1)?;
    let read_only_on: bool = row.try_get(2)?;
    let isolation_level: String = row.try_get(3)?;
    let (synchronous, standbys, fsync): (String, bool, bool) =
        (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
    let search_path: String = row.try_get(7)?;
    let schema: Option<String> = row.try_get(8)?;
    let (of_this_name, has_fences): (i64, bool) = (row.try_get(9)?, row.try_get(10)?);
    let indexed: Option<String> = row.try_get(11)?;
    let missing_rights: Option<String> = row.try_get(12)?;
    let (slots, used, role_limit): (i64, Option<i64>, Option<i64>) =
        (row.try_get(13)?, row.try_get(14)?, row.try_get(15)?);
    let (sees_all, oldest): (bool, Option<i64>) = (row.try_get(16)?, row.try_get(17)?);
    let (has_leaders, rights_on_leaders): (bool, Option<String>) =
        (row.try_get(18)?, row.try_get(19)?);

    let own = backend.names().schema.is_some();
    let not_public = schema.as_deref().is_some_and(|schema| schema != "public");
    let has_tables = schema.is_some() && has_fences;
    let missing_index = ["key", "lock_id", "expires_at_ms"]
        .into_iter()
        .filter(|column| !indexed.iter().any(|names| names.split(',').any(|name| name == *column)))
        .collect::<Vec<_>>()
        .join(", ");

    Ok(vec![
        version(number),
        found(
            unless(standby, Level::Error),
            primary,
            if standby { "the server is a standby" } else { "the server is a primary" }.to_owned(),
            "connect to the primary",
        ),
        found(
            unless(read_only_on && !standby, Level::Error),
            read_only,
            format!("transactions are {}", if read_only_on { "read-only" } else { "read-write" }),
            "set default_transaction_read_only to off for this user",
        ),
        found(
            unless(isolation_level != "read committed", Level::Warning),
            isolation,
            format!("default_transaction_isolation is {isolation_level}"),
            "set it to read committed for this user: stricter levels undo statements that meet, which \
             are then sent once more",
        ),
        found(
            unless(
                !fsync || synchronous == "off" || (standbys && synchronous == "local"),
                Level::Warning,
            ),
            commit,
            format!(
                "synchronous_commit is {synchronous}, fsync is {}, and {} standby is synchronous",
                if fsync { "on" } else { "off" },
                if standbys { "at least one" } else { "no" },
            ),
            "set both to on: a crash can undo a grant that was answered, and then two callers hold one \
             key",
        ),
        found(
            unless(!own && (not_public || (schema.is_some() && of_this_name > 1)), Level::Warning),
            path,
            match (&schema, own) {
                (Some(schema), true) => format!("the tables are in schema {schema}, as configured"),
                (Some(schema), false) => format!(
                    "search_path {search_path} finds the tables in schema {schema}, and {of_this_name} \
                     schemas have a table of this name"
                ),
                (None, _) => "there are no tables yet".to_owned(),
            },
            "name the schema with PostgresBackendBuilder::schema: a pooler can drop the search_path, and \
             then two processes use different tables",
        ),
        found(
            unless(!has_tables, Level::Error),
            tables,
            if has_tables { "both tables exist" } else { "a table does not exist" }.to_owned(),
            "call PostgresBackend::setup_schema, or run what schema_sql returns",
        ),
        if has_tables {
            found(
                unless(!missing_index.is_empty(), Level::Warning),
                indexes,
                if missing_index.is_empty() {
                    "all columns that are searched have an index".to_owned()
                } else {
                    format!("no index on {missing_index}")
                },
                "call PostgresBackend::setup_schema",
            )
        } else {
            unasked(indexes, "there are no tables yet")
        },
        if has_tables {
            found(
                unless(missing_rights.is_some(), Level::Error),
                privileges,
                missing_rights.map_or_else(
                    || "the user has all privileges on the tables".to_owned(),
                    |rights| format!("the user lacks {rights}"),
                ),
                "grant them",
            )
        } else {
            unasked(privileges, "there are no tables yet")
        },
        headroom_finding(backend, headroom, slots, used, role_limit),
        long_transactions(sees_all, oldest.unwrap_or_default()),
        leader_table(has_leaders, rights_on_leaders),
    ])
}

fn found(level: Level, code: &'static str, fact: String, advice: &'static str) -> Finding {
    let advice = if level == Level::Fine { "" } else { advice };
    Finding::new(level, code, fact, advice)
}

fn unless(bad: bool, level: Level) -> Level {
    if bad { level } else { Level::Fine }
}

/// `number` is the server's, such as 150018 for 15.18.
fn version(number: i32) -> Finding {
    found(
        unless(number < 120_000, Level::Error),
        "server-version",
        format!("the server is version {}.{}", number / 10_000, number % 10_000),
        "update to PostgreSQL 12 or later",
    )
}

fn headroom_finding(
    backend: &PostgresBackend,
    code: &'static str,
    slots: i64,
    used: Option<i64>,
    role_limit: Option<i64>,
) -> Finding {
    let Some(used) = used else {
        return unasked(code, "the server does not say how many are used");
    };
    let needed = i64::try_from(backend.connections().max()).unwrap_or(i64::MAX);
    let free = (slots - used).max(0);
    let limit = role_limit.map_or_else(String::new, |limit| format!(", {limit} for this user"));
    let fact = format!(
        "{free} of {slots} connections are free{limit}, and this process may use {needed} at a time"
    );
    let tight = free < needed || role_limit.is_some_and(|limit| limit < needed);
    let (level, advice) = match tight {
        true => (
            Level::Warning,
            "raise max_connections of the server, or lower PostgresBackendBuilder::max_connections",
        ),
        false => (Level::Fine, ""),
    };
    Finding::new(level, code, fact, advice)
}

/// `oldest` is the age of the oldest transaction in seconds.
fn long_transactions(sees_all: bool, oldest: i64) -> Finding {
    let code = "long-transactions";
    if !sees_all {
        let reason = "the user does not see transactions of others: grant pg_read_all_stats";
        return unasked(code, reason);
    }
    found(
        unless(oldest > LONG_TRANSACTION, Level::Warning),
        code,
        format!("the oldest transaction in this database has run for {oldest} s"),
        "end it, or set idle_in_transaction_session_timeout: while it runs, each cycle of a lock leaves \
         a dead row, and locks become slower",
    )
}

fn leader_table(exists: bool, missing_rights: Option<String>) -> Finding {
    let code = "leader-table";
    match (exists, missing_rights) {
        (false, _) => Finding::new(
            Level::Warning,
            code,
            "the table of leaders does not exist",
            "call PostgresBackend::setup_schema, or run what schema_sql returns: locks work, but leaders \
             cannot publish",
        ),
        (true, Some(rights)) => Finding::new(
            Level::Warning,
            code,
            format!("the user lacks {rights} on the table of leaders"),
            "grant them: locks work, but leaders cannot publish",
        ),
        (true, None) => Finding::new(Level::Fine, code, "leaders can publish", ""),
    }
}

/// In seconds. A hot key has tens of thousands of cycles in this time.
const LONG_TRANSACTION: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_an_error() {
        assert_eq!(version(119_999).level(), Level::Error);
        assert_eq!(version(120_000).level(), Level::Fine);
        assert!(version(150_018).fact().contains("15.18"));
    }

    #[test]
    fn a_long_transaction_is_a_warning_if_the_user_may_see_it() {
        assert_eq!(long_transactions(true, 3_600).level(), Level::Warning);
        assert_eq!(long_transactions(true, 1).level(), Level::Fine);
        assert_eq!(long_transactions(false, 0).level(), Level::Unknown);
    }
    #[test]
    fn a_missing_table_of_leaders_is_a_warning() {
        assert_eq!(leader_table(false, None).level(), Level::Warning);
        assert_eq!(leader_table(true, Some("INSERT".to_owned())).level(), Level::Warning);
        assert_eq!(leader_table(true, None).level(), Level::Fine);
    }
}

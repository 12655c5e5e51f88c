//! The statements of a backend, and the two ways to send them.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions};
use syncguard_core::{Fence, Key, LockId, Ttl};
use tokio::time::Instant;

use crate::names::Names;

/// The statements, with the names of the tables filled in.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) acquire: Statement,
    /// As `acquire`, but says that the key is busy where that one waits for others.
    pub(crate) acquire_at_once: Statement,
    pub(crate) acquire_many: Statement,
    pub(crate) extend: Statement,
    pub(crate) extend_many: Statement,
    pub(crate) extend_by_id: Statement,
    pub(crate) release: Statement,
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
        let extend = include_str!("operations/sql/extend.sql");
        let release = include_str!("operations/sql/release.sql");
        let look_up = include_str!("operations/sql/look_up.sql");
        Self {
            acquire: statement(&acquire.replace("{turn}", WAIT_FOR_THE_TURN)),
            acquire_at_once: statement(&acquire.replace("{turn}", TRY_THE_TURN)),
            acquire_many: statement(include_str!("operations/sql/acquire_many.sql")),
            extend: by_key(extend, "$4"),
            extend_many: statement(include_str!("operations/sql/extend_many.sql")),
            extend_by_id: by_id(extend),
            release: by_key(release, "$4"),
            release_many: statement(include_str!("operations/sql/release_many.sql")),
            release_by_id: by_id(release),
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

/// How a statement is sent: one round trip either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Prepared once per connection.
    Prepared,
    /// As text, with the values in it: for a pooler that may hand each message to another server
    /// connection, where nothing was prepared, or something else under the same name.
    Simple,
}

impl Protocol {
    /// A statement cache of size zero says that statements must not be kept.
    ///
    /// The driver's other ways are no better behind such a pooler: without a cache it still prepares
    /// under a name, and an unnamed statement takes two messages as well.
    pub(crate) fn of(pool: &PgPool) -> Self {
        Self::of_options(&pool.connect_options())
    }

    fn of_options(options: &PgConnectOptions) -> Self {
        // The driver tells the size of its cache in a URL only, and panics if host and user make no
        // valid one: no host, an IPv6 host, `user@tenant`. Nothing else can make the URL invalid.
        let url = options.clone().socket("/").username("any").to_url_lossy();
        let mut settings = url.query_pairs();
        if settings.any(|(name, value)| name == "statement-cache-capacity" && value == "0") {
            Self::Simple
        } else {
            Self::Prepared
        }
    }
}

/// A value for a parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(Option<&'a str>),
    Texts(&'a [&'a str]),
    Bytes(&'a [u8]),
    Fence(Fence),
    Millis(Option<i64>),
    AllMillis(&'a [i64]),
}

/// A TTL in ms, which is far below the limit of the type.
pub(crate) fn millis(ttl: Ttl) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

impl Value<'_> {
    /// Of a release, whose commit need not be on disk before the answer.
    pub(crate) const LAZY_COMMIT: Self = Self::Text(Some("off"));

    pub(crate) fn ttl(ttl: Ttl) -> Self {
        Self::Millis(Some(millis(ttl)))
    }

    /// The value as a part of a statement. Hexadecimal digits need no quoting, whatever the settings
    /// of the session.
    fn literal(self) -> String {
        match self {
            Self::Text(None) | Self::Millis(None) => "NULL".to_owned(),
            Self::Text(Some(text)) => {
                format!("convert_from({}, 'UTF8')", Self::Bytes(text.as_bytes()).literal())
            }
            Self::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("decode('{hex}', 'hex')")
            }
            Self::Fence(fence) => fence.get().to_string(),
            Self::Texts(texts) => {
                let texts = texts.iter().map(|text| Self::Text(Some(text)).literal());
                format!("ARRAY[{}]::text[]", texts.collect::<Vec<_>>().join(","))
            }
            Self::Millis(Some(millis)) => millis.to_string(),
            Self::AllMillis(all) => {
                let all = all.iter().map(i64::to_string);
                format!("ARRAY[{}]::bigint[]", all.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl<'a> From<&'a Key> for Value<'a> {
    fn from(key: &'a Key) -> Self {
        Self::Text(Some(key.as_str()))
    }
}

impl<'a> From<&'a LockId> for Value<'a> {
    fn from(id: &'a LockId) -> Self {
        Self::Text(Some(id.as_str()))
    }
}

/// How long a statement that is sent now may wait for one lock, in ms. It may have to wait twice, for
/// the key and for a row, and must have come to its end on the server before the client gives it up.
pub(crate) fn patience(deadline: Instant) -> i64 {
    let limit = deadline.saturating_duration_since(Instant::now()) / 2;
    // Zero would mean no limit.
    i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// One statement, which is one transaction and one round trip.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    text: Arc<str>,
    protocol: Protocol,
}

impl Statement {
    /// Sends it, and waits for the end of its transaction: a row alone says nothing yet.
    pub(crate) async fn fetch(
        &self,
        connection: &mut PgConnection,
        values: &[Value<'_>],
    ) -> sqlx::Result<Option<PgRow>> {
        match self.protocol {
            Protocol::Prepared => self.with_parameters(values).fetch_optional(connection).await,
            Protocol::Simple => fetch_text(connection, self.with_literals(values)).await,
        }
    }

    /// Sends a statement with many rows.
    pub(crate) async fn fetch_all(
        &self,
        connection: &mut PgConnection,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<PgRow>> {
        match self.protocol {
            Protocol::Prepared => self.with_parameters(values).fetch_all(connection).await,
            Protocol::Simple => {
                let text = AssertSqlSafe(self.with_literals(values));
                sqlx::raw_sql(text).fetch_all(connection).await
            }
        }
    }

    /// Sends a statement with many rows at READ COMMITTED.
    pub(crate) async fn fetch_all_at_read_committed(
        &self,
        connection: &mut PgConnection,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<PgRow>> {
        let text = AssertSqlSafe(self.at_read_committed(values));
        sqlx::raw_sql(text).fetch_all(connection).await
    }

    /// Sends it over a connection of the caller, whose driver may log the text of slow statements. So
    /// the values are never part of the text.
    ///
    /// In the simple protocol this takes a second round trip. Even a pooler runs both in one session,
    /// because they are in one transaction.
    pub(crate) async fn fetch_in_transaction(
        &self,
        connection: &mut PgConnection,
        values: &[Value<'_>],
    ) -> sqlx::Result<Option<PgRow>> {
        let query = self.with_parameters(values);
        query.persistent(self.protocol == Protocol::Prepared).fetch_optional(connection).await
    }

    /// Sends it at READ COMMITTED, whatever the session's default is. There a statement never
    /// conflicts with others, because no row is too new for it.
    ///
    /// The two statements are one text, and so one transaction and one round trip.
    pub(crate) async fn fetch_at_read_committed(
        &self,
        connection: &mut PgConnection,
        values: &[Value<'_>],
    ) -> sqlx::Result<Option<PgRow>> {
        fetch_text(connection, self.at_read_committed(values)).await
    }

    fn at_read_committed(&self, values: &[Value<'_>]) -> String {
        let text = self.with_literals(values);
        format!("SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {text}")
    }

    fn with_parameters<'q>(&self, values: &[Value<'q>]) -> Query<'q, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.text)));
        values.iter().fold(query, |query, value| match *value {
            Value::Text(text) => query.bind(text),
            Value::Texts(texts) => query.bind(texts),
            Value::Bytes(bytes) => query.bind(bytes),
            Value::Fence(fence) => query.bind(fence),
            Value::Millis(millis) => query.bind(millis),
            Value::AllMillis(all) => query.bind(all),
        })
    }

    fn with_literals(&self, values: &[Value<'_>]) -> String {
        let numbered = (1..).zip(values);
        numbered.fold(self.text.to_string(), |text, (number, value)| {
            text.replace(&format!("${number}"), &value.literal())
        })
    }
}

async fn fetch_text(connection: &mut PgConnection, text: String) -> sqlx::Result<Option<PgRow>> {
    let query = sqlx::raw_sql(AssertSqlSafe(text));
    query.fetch_optional(connection).await
}

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
    fn a_statement_cache_of_zero_means_the_simple_protocol() {
        let of = |url: &str| Protocol::of_options(&url.parse().unwrap());
        assert_eq!(of("postgres://u:p@h/d"), Protocol::Prepared);
        assert_eq!(of("postgres://u@h/d?statement-cache-capacity=10"), Protocol::Prepared);
        assert_eq!(of("postgres://u@h/d?statement-cache-capacity=0"), Protocol::Simple);
        let options = PgConnectOptions::new().statement_cache_capacity(0);
        assert_eq!(Protocol::of_options(&options), Protocol::Simple);
    }

    #[test]
    fn f3_the_protocol_of_any_options_is_known_without_a_panic() {
        let hostile =
            ["", "::1", "[::1]", "a b", "u@tenant", "a:b", "/", "a/b?c#d", "\u{e9}", "\0", "%"];
        for text in hostile {
            let options = PgConnectOptions::new_without_pgpass().statement_cache_capacity(0);
            for options in [
                options.clone().host(text),
                options.clone().socket(text),
                options.clone().username(text),
                options.clone().password(text),
                options.clone().database(text),
                options.clone().application_name(text),
                options.clone().options([("search_path", text)]),
                options.clone().ssl_root_cert(text),
            ] {
                assert_eq!(Protocol::of_options(&options), Protocol::Simple, "{text:?}");
            }
        }
        for url in
            ["postgres:///app", "postgres://[::1]/app", "postgres://%2Ftmp/app", "postgres:app"]
        {
            let options: PgConnectOptions = url.parse().unwrap();
            assert_eq!(Protocol::of_options(&options), Protocol::Prepared, "{url}");
        }
    }

    #[test]
    fn a_value_in_a_statement_cannot_end_it() {
        let statement = Statement { text: "SELECT $1, $2, $3".into(), protocol: Protocol::Simple };
        let hostile = Value::Text(Some("'; $2 \\"));
        assert_eq!(
            statement.with_literals(&[hostile, Value::Millis(Some(7)), Value::Text(None)]),
            "SELECT convert_from(decode('273b202432205c', 'hex'), 'UTF8'), 7, NULL"
        );
    }

    #[test]
    fn every_name_is_filled_in() {
        let statements = Statements::new(&Names::default(), Protocol::Prepared);
        let text = format!("{statements:?}");
        let names =
            ["{locks}", "{leaders}", "{last_fence}", "{now}", "{the_lease}", "{turn}", "--"];
        assert!(names.iter().all(|name| !text.contains(name)), "{text}");
    }
}

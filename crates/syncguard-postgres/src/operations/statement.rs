//! A statement, and the ways to send it.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;

use super::protocol::Protocol;
use super::value::Value;

/// One statement, which is one transaction and one round trip.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(super) text: Arc<str>,
    pub(super) protocol: Protocol,
}

impl Statement {
    /// Whether sessions keep a plan of it.
    pub(crate) fn is_prepared(&self) -> bool {
        self.protocol == Protocol::Prepared
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_statement_cannot_end_it() {
        let statement = Statement { text: "SELECT $1, $2, $3".into(), protocol: Protocol::Simple };
        let hostile = Value::Text(Some("'; $2 \\"));
        assert_eq!(
            statement.with_literals(&[hostile, Value::Millis(Some(7)), Value::Text(None)]),
            "SELECT convert_from(decode('273b202432205c', 'hex'), 'UTF8'), 7, NULL"
        );
    }
}

//! The tables.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use syncguard_core::{Operation, Result};
use tokio::time::{Instant, timeout_at};

use crate::PostgresBackend;
use crate::error::{is_creation_race, timed_out};
use crate::statement::{fill_in, patience};
use crate::tables::Tables;

impl PostgresBackend {
    /// Creates the tables and indexes that are missing, and leaves alone what is there.
    ///
    /// It may be called at every start, by many processes at once. Where nothing is missing it only
    /// looks, so it then needs no right to create tables. What the TypeScript client created is kept
    /// as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::AuthFailed`](syncguard_core::ErrorCode::AuthFailed) without the right to create
    /// tables; others as the server fails.
    ///
    /// # Cancel safety
    ///
    /// Everything missing is created, or nothing.
    pub async fn setup_schema(&self) -> Result<()> {
        let operation = Operation::Configure;
        let deadline = self.deadline();
        let mut connection = self.connection(operation, deadline).await?;
        match timeout_at(deadline, self.create(&mut connection, deadline)).await {
            Ok(result) => result.map_err(|error| self.failed(operation, error)),
            Err(_) => {
                connection.close_on_drop();
                Err(timed_out(operation))
            }
        }
    }

    /// The statements of [`setup_schema`](Self::setup_schema) as text, for your own migrations.
    #[must_use]
    pub fn schema_sql(&self) -> String {
        let mut sql = fill_in(include_str!("sql/schema.sql"), self.tables());
        if self.has_delete_trigger() {
            sql.push_str(&fill_in(include_str!("sql/trigger.sql"), self.tables()));
        }
        sql
    }

    /// One text is one transaction, so all is there or nothing, and the lock makes processes of this
    /// client take turns. The other client takes no lock, so a creation of its own can still get in
    /// between: then everything is there at the next look.
    async fn create(&self, connection: &mut PgConnection, deadline: Instant) -> sqlx::Result<()> {
        // Most starts of a service end here: creating an index waits for all writers even when it is
        // there, and needs a permission that a service seldom has.
        if self.is_complete(connection).await? {
            return Ok(());
        }
        // The limit ends a wait on the server too, where giving up does not.
        let create = || {
            format!(
                "SET LOCAL lock_timeout = {}; \
                 SELECT pg_advisory_xact_lock(hashtext('syncguard'), hashtext('setup_schema')); {}",
                patience(deadline),
                self.schema_sql()
            )
        };
        for _ in 0..CREATION_RACES {
            match connection.execute(sqlx::raw_sql(AssertSqlSafe(create()))).await {
                Err(error) if is_creation_race(&error) => {}
                result => return result.map(drop),
            }
        }
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create()))).await.map(drop)
    }

    async fn is_complete(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let Tables { locks, fences, lock_id_index, expires_index, channel, .. } = self.tables();
        let mut found = format!(
            "SELECT 1 WHERE to_regclass('{locks}') IS NOT NULL \
             AND to_regclass('{fences}') IS NOT NULL \
             AND to_regclass('{lock_id_index}') IS NOT NULL \
             AND to_regclass('{expires_index}') IS NOT NULL"
        );
        if self.has_delete_trigger() {
            found.push_str(&format!(
                " AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('{locks}') \
                 AND tgname = '{channel}')"
            ));
        }
        let row = connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(found)));
        Ok(row.await?.is_some())
    }
}

/// Each of four objects can be lost to somebody else at most once.
const CREATION_RACES: usize = 4;

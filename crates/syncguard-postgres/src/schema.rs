//! The tables.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use syncguard_core::{Operation, Result};
use tokio::time::{Instant, timeout_at};

use crate::PostgresBackend;
use crate::connections::Purpose;
use crate::error::is_creation_race;
use crate::names::Names;
use crate::operations::{fill_in, patience};

impl PostgresBackend {
    /// Creates the tables and indexes that are missing, and leaves alone what is there.
    ///
    /// It may be called at every start, by many processes at once. Where nothing is missing it only
    /// looks, so it then needs no right to create tables. What the TypeScript client created is kept
    /// as it is. That client has no table of leaders, so the right is needed once.
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
        let deadline = self.deadline();
        let mut borrowed = self.borrow(Operation::Configure, Purpose::Attempt, deadline).await?;
        let created = self.create(borrowed.connection(), deadline);
        let created = timeout_at(deadline, created).await;
        let found_in = self.answer(Operation::Configure, borrowed, created)?;
        self.warn_of_search_path(found_in.as_deref());
        Ok(())
    }

    /// The statements of [`setup_schema`](Self::setup_schema) as text, for your own migrations.
    #[must_use]
    pub fn schema_sql(&self) -> String {
        let mut sql = fill_in(include_str!("operations/sql/schema.sql"), self.names());
        if self.has_delete_trigger() {
            sql.push_str(&fill_in(include_str!("operations/sql/trigger.sql"), self.names()));
        }
        sql
    }

    /// Creates what is missing, and returns the schema of the lock table.
    ///
    /// One text is one transaction, so everything is created or nothing. An advisory lock makes
    /// processes of this client take turns. The other client takes no lock, so it can create the same
    /// objects at the same time. The next attempt then finds them.
    async fn create(
        &self,
        connection: &mut PgConnection,
        deadline: Instant,
    ) -> sqlx::Result<Option<String>> {
        // Most starts of a service end here. Creating an index waits for all writers even if it
        // exists, and needs a permission that a service seldom has.
        if let Some(schema) = self.find_all(connection).await? {
            return Ok(Some(schema));
        }
        // The limit ends a wait on the server too. Dropping the future does not.
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
                Err(error) => return Err(error),
                Ok(_) => return self.find_all(connection).await,
            }
        }
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create()))).await?;
        self.find_all(connection).await
    }

    /// Returns the schema of the lock table, if nothing is missing.
    async fn find_all(&self, connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
        let names = self.names();
        let Names { locks, fences, leaders, channel, .. } = names;
        let (lock_id_index, expires_index) =
            (names.in_schema(&names.lock_id_index), names.in_schema(&names.expires_index));
        let mut found = format!(
            "SELECT nspname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace \
             WHERE c.oid = to_regclass('{locks}') \
             AND to_regclass('{fences}') IS NOT NULL \
             AND to_regclass('{leaders}') IS NOT NULL \
             AND to_regclass('{lock_id_index}') IS NOT NULL \
             AND to_regclass('{expires_index}') IS NOT NULL"
        );
        if self.has_delete_trigger() {
            found.push_str(&format!(
                " AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('{locks}') \
                 AND tgname = '{channel}')"
            ));
        }
        let row = connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(found))).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Warns if the `search_path` alone decides which tables are meant. A pooler may drop the setting,
    /// and then the same URL names other tables, and two processes hold one key.
    fn warn_of_search_path(&self, found_in: Option<&str>) {
        if let (None, Some(schema)) = (&self.names().schema, found_in)
            && schema != "public"
        {
            tracing::warn!(
                schema,
                "the search_path of the session decides that the lock tables are in this schema: name \
                 it with PostgresBackendBuilder::schema, or a process whose pooler drops the setting \
                 uses other tables"
            );
        }
    }
}

/// The other client can be faster with each of four objects at most once.
const CREATION_RACES: usize = 4;

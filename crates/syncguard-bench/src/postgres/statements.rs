//! How much the server has been told to do, and how many connections it allows.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use syncguard_postgres::sqlx;
use tokio::time::{sleep, timeout};

use crate::contestant::Outcome;

pub(crate) struct Statements {
    connection: PgConnection,
    /// Whether the server counts statements: it must have been started with pg_stat_statements.
    counted: bool,
}

impl Statements {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let preloaded: String =
            sqlx::query_scalar("SHOW shared_preload_libraries").fetch_one(&mut connection).await?;
        let counted = preloaded.contains("pg_stat_statements");
        if counted {
            sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                .execute(&mut connection)
                .await?;
        }
        Ok(Self { connection, counted })
    }

    pub(crate) const fn unit(&self) -> &'static str {
        if self.counted { "statements/grant" } else { "transactions/grant" }
    }

    /// Statements so far, or else transactions, once those who sent them are gone.
    pub(crate) async fn count(&mut self) -> Outcome<f64> {
        if !self.counted {
            // A session reports its transactions at its end, or at times.
            self.wait_for_others_to_end().await?;
        }
        let count = if self.counted {
            "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements \
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        } else {
            "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database \
             WHERE datname = current_database()"
        };
        Ok(sqlx::query_scalar(count).fetch_one(&mut self.connection).await?)
    }

    async fn wait_for_others_to_end(&mut self) -> Outcome {
        let gone = async {
            loop {
                let others: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
                )
                .fetch_one(&mut self.connection)
                .await?;
                if others == 0 {
                    return Outcome::Ok(());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        // Others may be there for good.
        timeout(Duration::from_secs(1), gone).await.unwrap_or(Ok(()))
    }

    /// How many more connections the server has to give.
    pub(crate) async fn connections(&mut self) -> Outcome<usize> {
        let free: i64 = sqlx::query_scalar(
            "SELECT current_setting('max_connections')::bigint \
             - current_setting('superuser_reserved_connections')::bigint \
             - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(usize::try_from(free).unwrap_or_default())
    }
}

//! Counts the statements that the server has run, and the connections that it has left.

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use syncguard_bench::Outcome;
use syncguard_postgres::sqlx;
use tokio::time::{sleep, timeout};

pub(crate) struct Statements {
    connection: PgConnection,
    /// True if the server counts statements, which needs pg_stat_statements to be preloaded.
    counted: bool,
}

impl Statements {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        let mut connection = PgConnection::connect(url).await?;
        let set_up = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
        let probe = "SELECT FROM pg_stat_statements LIMIT 1";
        let counted = sqlx::query(set_up).execute(&mut connection).await.is_ok()
            && sqlx::query(probe).execute(&mut connection).await.is_ok();
        Ok(Self { connection, counted })
    }

    /// Returns the number of statements so far, if the server counts them.
    pub(crate) async fn count(&mut self) -> Outcome<Option<f64>> {
        if !self.counted {
            return Ok(None);
        }
        let count = sqlx::query_scalar(
            "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements \
             WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        );
        Ok(Some(count.fetch_one(&mut self.connection).await?))
    }

    /// Makes the space of dead rows usable again, as autovacuum does in its time.
    pub(crate) async fn vacuum(&mut self) -> Outcome {
        let tables = sqlx::query("VACUUM syncguard_locks, syncguard_fence_counters");
        tables.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Returns how many connections the server has left, after those of the last run have ended.
    pub(crate) async fn connections(&mut self) -> Outcome<usize> {
        self.wait_for_others_to_end().await?;
        let free: i64 = sqlx::query_scalar(
            "SELECT current_setting('max_connections')::bigint \
             - current_setting('superuser_reserved_connections')::bigint \
             - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(usize::try_from(free).unwrap_or_default())
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
        // Other clients may stay connected, so the wait is limited.
        timeout(Duration::from_secs(1), gone).await.unwrap_or(Ok(()))
    }
}

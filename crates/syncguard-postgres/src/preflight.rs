//! Checks of how the database is set up.

mod answer;
mod pooler;

use sqlx::postgres::PgRow;
use syncguard_core::{Finding, Level, Operation, Result};
use tokio::time::timeout_at;

use self::answer::{CHECKS, judge};
use self::pooler::{POOLER_MODE, unasked};
use crate::PostgresBackend;
use crate::connections::Purpose;
use crate::operations::Value;

const CONNECTION: &str = "connection";

impl PostgresBackend {
    /// Checks everything within one command timeout.
    pub(crate) async fn check(&self) -> Vec<Finding> {
        let deadline = self.deadline();
        let mut findings = match self.ask().await.map(|row| judge(self, &row)) {
            Ok(Ok(findings)) => findings,
            Ok(Err(error)) => unknown(&format!("the answer cannot be read: {error}")),
            Err(error) => {
                let advice = "correct this first: no other check was made";
                let mut all =
                    vec![Finding::new(Level::Error, CONNECTION, error.to_string(), advice)];
                all.extend(unknown("there is no connection"));
                all.push(unasked(POOLER_MODE, "there is no connection"));
                return all;
            }
        };
        findings.insert(0, Finding::new(Level::Fine, CONNECTION, "the server answers", ""));
        let pooler = timeout_at(deadline, pooler::check(self)).await;
        findings.push(pooler.unwrap_or_else(|_| {
            unasked(POOLER_MODE, "two connections at a time were not served in time")
        }));
        findings
    }

    async fn ask(&self) -> Result<PgRow> {
        let (operation, deadline) = (Operation::Preflight, self.deadline());
        let mut borrowed = self.borrow(operation, Purpose::Attempt, deadline).await?;
        let table = self.names().lock_table();
        let values = [Value::Text(Some(table))];
        let row = self.statements().preflight.fetch(borrowed.connection(), &values);
        let row = timeout_at(deadline, row).await;
        let row = row.map(|row| row.and_then(|row| row.ok_or(sqlx::Error::RowNotFound)));
        self.answer(operation, borrowed, row)
    }
}

fn unknown(reason: &str) -> Vec<Finding> {
    CHECKS.iter().map(|code| unasked(code, reason)).collect()
}

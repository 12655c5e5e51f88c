//! The database: sends a statement over a connection, and judges the connection by the answer.

use std::time::Duration;

use sqlx::postgres::PgRow;
use syncguard_core::{Error, ErrorCode, Operation, Result, Sent};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::connections::{Borrowed, Connections, Purpose, Unconnected};
use crate::error::{Verdict, classify, closed, is_conflict, no_connection, timed_out, verdict};
use crate::names::Names;
use crate::operations::{Statement, Statements, Value, patience};

/// What the operations of one backend share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connections: Connections,
    pub(crate) names: Names,
    pub(crate) statements: Statements,
    pub(crate) command_timeout: Duration,
}

impl Database {
    /// When an operation that begins now must have ended.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.command_timeout
    }

    /// Lends a connection, within half of the time that is left. Until it returns, nothing was sent.
    pub(crate) async fn borrow(
        &self,
        operation: Operation,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Borrowed> {
        in_runtime(operation)?;
        let connections = &self.connections;
        match timeout_at(half_of(deadline), connections.take(purpose)).await {
            Ok(Ok(borrowed)) => Ok(borrowed),
            Ok(Err(Unconnected::Closed)) => Err(closed(operation)),
            Ok(Err(Unconnected::Refused(refusal))) => Err(refusal.into_error(operation)),
            Err(_) => Err(self.no_connection(operation)),
        }
    }

    /// The error for an operation that got no connection in time.
    pub(crate) fn no_connection(&self, operation: Operation) -> Error {
        match self.connections.refusal() {
            Some(refusal) => refusal.into_error(operation),
            None => no_connection(operation),
        }
    }

    /// Gives a connection back, or closes it, as the answer to its statement says.
    pub(crate) fn answer<T>(
        &self,
        operation: Operation,
        borrowed: Borrowed,
        answer: Result<sqlx::Result<T>, Elapsed>,
    ) -> Result<T> {
        match answer {
            Ok(Ok(answer)) => {
                borrowed.give_back();
                Ok(answer)
            }
            Ok(Err(error)) => {
                match verdict(operation, &error) {
                    Verdict::Keep => borrowed.give_back(),
                    Verdict::Close => borrowed.condemn(false),
                    Verdict::CloseAll => borrowed.condemn(true),
                }
                Err(classify(operation, &self.names, error))
            }
            Err(_) => {
                borrowed.condemn(false);
                Err(timed_out(operation))
            }
        }
    }

    /// Sends a statement within the command timeout.
    pub(crate) async fn run<'a, V: AsRef<[Value<'a>]> + Send>(
        &self,
        operation: Operation,
        statement: &Statement,
        values: impl Fn(Value<'a>) -> V + Send + Sync,
    ) -> Result<Option<PgRow>> {
        let (deadline, sent) = (self.deadline(), Sent::default());
        self.run_until(deadline, operation, statement, &sent, values).await
    }

    /// Sends a statement over a connection that is borrowed for it, and marks `sent` before.
    pub(crate) async fn run_until<'a, V: AsRef<[Value<'a>]> + Send>(
        &self,
        deadline: Instant,
        operation: Operation,
        statement: &Statement,
        sent: &Sent,
        values: impl Fn(Value<'a>) -> V + Send + Sync,
    ) -> Result<Option<PgRow>> {
        let borrowed = self.borrow(operation, Purpose::of(operation), deadline).await?;
        sent.mark();
        self.send(borrowed, operation, statement, deadline, values).await
    }

    /// Sends a statement, and once more if others have undone it: by a conflict, at a stricter
    /// isolation level than READ COMMITTED, or by filling up the notification queue at just that
    /// moment. Every operation that is sent alone goes through here.
    ///
    /// Its values may include how long it may wait for a lock, which depends on how long it took to
    /// get the connection.
    pub(crate) async fn send<'a, V: AsRef<[Value<'a>]> + Send>(
        &self,
        mut borrowed: Borrowed,
        operation: Operation,
        statement: &Statement,
        deadline: Instant,
        values: impl Fn(Value<'a>) -> V + Send + Sync,
    ) -> Result<Option<PgRow>> {
        let values = || values(Value::Millis(Some(patience(deadline))));
        let answer = async {
            if statement.is_prepared() {
                borrowed.renew_plans().await?;
            }
            let connection = borrowed.connection();
            match statement.fetch(connection, values().as_ref()).await {
                Err(error) if is_conflict(&error) => {
                    statement.fetch_at_read_committed(connection, values().as_ref()).await
                }
                result => result,
            }
        };
        let answer = timeout_at(deadline, answer).await;
        self.answer(operation, borrowed, answer)
    }
}

/// Until when an operation may wait for a connection.
///
/// The other half of its time is for the answer. With more callers than the server can serve in time, all
/// would else be sent just before their deadlines, get no answer in time, and have their connections
/// closed.
fn half_of(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// An error outside a runtime, where a connection cannot be used.
pub(crate) fn in_runtime(operation: Operation) -> Result<()> {
    Handle::try_current().map(drop).map_err(|source| {
        Error::new(ErrorCode::InvalidArgument, operation)
            .with_message("called outside a tokio runtime: call it from a task of one")
            .with_source(source)
    })
}

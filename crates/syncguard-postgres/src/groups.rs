//! Group commit: attempts, renewals and releases that arrive together share a statement.

mod kinds;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use syncguard_backend::{Combiner, GroupCommit, Requests, TimeLimits};
use syncguard_core::{Error, ErrorCode, Result, Sent};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::kinds::{Acquire, Extend};
use self::kinds::{Acquires, Extends, Kind, Releases};
use crate::connections::{Borrowed, Purpose};
use crate::database::{Database, in_runtime};
use crate::error::{is_conflict, may_concern_one, timed_out};
use crate::operations::{Value, patience};

/// With fewer lanes, four tasks wait longer than without groups, and fewer operations a second reach a distant
/// server. A statement of 32 operations takes the server about a millisecond. BENCHMARKS.md has the figures.
pub(crate) const DEFAULT: GroupCommit = GroupCommit { lanes: 4, cap: 32 };

/// The server is near if a statement can take less time than this. An operation then gains by waiting for the end
/// of one, because a statement of eight operations costs the server less than two of four. BENCHMARKS.md has
/// the figures.
const SHORT_STATEMENT: Duration = Duration::from_millis(1);

/// One group for each kind of operation, because a statement does one kind.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) acquires: Group<Acquires>,
    pub(crate) extends: Group<Extends>,
    pub(crate) releases: Group<Releases>,
}

impl Groups {
    pub(crate) fn new(database: &Arc<Database>, group_commit: Option<GroupCommit>) -> Self {
        let limit = database.command_timeout;
        // As for a connection, half of the time is for the answer.
        let (unsent, unanswered) = (limit / 2, limit / 2 + GRACE);
        let limits = TimeLimits { short_request: SHORT_STATEMENT, unsent, unanswered };
        let acquires = group_commit.map(|how| Combiner::new(Sender::new(database), how, limits));
        let acquires = Group { database: database.clone(), combiner: acquires };
        Self { extends: acquires.beside(), releases: acquires.beside(), acquires }
    }
}

/// The operations of one kind.
#[derive(Debug)]
pub(crate) struct Group<K: Kind> {
    database: Arc<Database>,
    /// `None` if each operation has a statement of its own.
    combiner: Option<Combiner<Sender<K>>>,
}

/// How much longer than its deadline an operation waits for the statement that it is in. The statement
/// has a limit of its own, at which its connection is closed.
const GRACE: Duration = Duration::from_millis(100);

impl<K: Kind> Group<K> {
    /// The operations of another kind, by the same callers.
    fn beside<L: Kind>(&self) -> Group<L> {
        let beside = |combiner: &Combiner<_>| combiner.beside(Sender::new(&self.database));
        Group { database: self.database.clone(), combiner: self.combiner.as_ref().map(beside) }
    }

    /// Runs an operation, together with others if there are any.
    pub(crate) async fn run(&self, operation: K::Operation, sent: &Sent) -> Result<K::Answer> {
        let deadline = self.database.deadline();
        let Some(combiner) = &self.combiner else {
            return self.alone(&operation, deadline, sent).await;
        };
        in_runtime(K::OPERATION)?;
        let answer = combiner.run((operation.clone(), deadline), sent).await;
        match answer? {
            Some(answer) => Ok(answer),
            None => self.alone(&operation, deadline, sent).await,
        }
    }

    async fn alone(
        &self,
        operation: &K::Operation,
        deadline: Instant,
        sent: &Sent,
    ) -> Result<K::Answer> {
        let statement = K::alone(&self.database.statements);
        let values = |patience| K::values(operation, patience);
        let row = self.database.run_until(deadline, K::OPERATION, statement, sent, values).await?;
        K::answer(row, operation)
    }
}

/// Sends the statements of one kind. An answer of `None` says that the operation must be sent again, by
/// itself and without a lane, because it may wait for a lock.
#[derive(Debug)]
pub(crate) struct Sender<K> {
    database: Arc<Database>,
    kind: PhantomData<K>,
}

impl<K: Kind> Requests for Sender<K> {
    /// With the time at which it must have ended.
    type Operation = (K::Operation, Instant);
    type Answer = Option<K::Answer>;
    type Connection = Borrowed;

    fn connection_at_hand(&self) -> Option<Borrowed> {
        self.database.connections.take_idle(Purpose::of(K::OPERATION))
    }

    async fn connect(&self) -> Result<Borrowed> {
        let deadline = self.database.deadline();
        self.database.borrow(K::OPERATION, Purpose::of(K::OPERATION), deadline).await
    }

    // No statement that has a lane waits for a lock, because others wait for the lane.
    async fn send_alone(
        &self,
        connection: Borrowed,
        (operation, deadline): (K::Operation, Instant),
    ) -> Result<Option<K::Answer>> {
        let statement = K::at_once(&self.database.statements);
        let values = |patience| K::values(&operation, patience);
        let row = self.database.send(connection, K::OPERATION, statement, deadline, values).await?;
        K::answer_at_once(row, &operation)
    }

    async fn send(
        &self,
        connection: Borrowed,
        operations: Vec<(K::Operation, Instant)>,
    ) -> Vec<Result<Option<K::Answer>>> {
        let deadline = operations.iter().map(|(_, deadline)| *deadline).max();
        self.send_many(connection, &operations, deadline.unwrap_or_else(Instant::now)).await
    }

    fn abandoned(&self) -> Error {
        Error::new(ErrorCode::NetworkTimeout, K::OPERATION)
            .with_message("the runtime that sent the statement has ended: try again")
    }

    fn unsent(&self) -> Error {
        self.database.no_connection(K::OPERATION)
    }

    fn unanswered(&self) -> Error {
        timed_out(K::OPERATION)
    }
}

impl<K: Kind> Sender<K> {
    fn new(database: &Arc<Database>) -> Self {
        Self { database: database.clone(), kind: PhantomData }
    }

    async fn send_many(
        &self,
        mut connection: Borrowed,
        operations: &[(K::Operation, Instant)],
        deadline: Instant,
    ) -> Vec<Result<Option<K::Answer>>> {
        let operations: Vec<_> = operations.iter().map(|(operation, _)| operation).collect();
        // A statement changes a row once. Another operation on it follows alone.
        let first = first_of_each(operations.iter().map(|operation| K::subject(operation)));
        let sent = || operations.iter().zip(&first).filter(|(_, first)| **first);
        let columns = K::columns(sent().map(|(operation, _)| *operation));
        let statement = K::together(&self.database.statements);
        let answer = async {
            if statement.is_prepared() {
                connection.renew_plans().await?;
            }
            let link = connection.connection();
            let values = || columns.values(Value::Millis(Some(patience(deadline))));
            match statement.fetch_all(link, &values()).await {
                Err(error) if is_conflict(&error) => {
                    statement.fetch_all_at_read_committed(link, &values()).await
                }
                result => result,
            }
        };
        let answer = timeout_at(deadline, answer).await;
        // One operation that fails undoes the whole statement. Sent again by itself, each operation gets its own answer.
        let alone = matches!(&answer, Ok(Err(error)) if may_concern_one(error));
        match self.database.answer(K::OPERATION, connection, answer) {
            Ok(rows) => {
                let mut rows = rows.into_iter();
                let answer = |(operation, first): (&&K::Operation, &bool)| match first {
                    true => rows.next().map_or(Ok(None), |row| together::<K>(row, operation)),
                    false => Ok(None),
                };
                operations.iter().zip(&first).map(answer).collect()
            }
            Err(_) if alone => operations.iter().map(|_| Ok(None)).collect(),
            Err(error) => operations.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

fn together<K: Kind>(row: PgRow, operation: &K::Operation) -> Result<Option<K::Answer>> {
    if K::is_busy(&row)? { Ok(None) } else { K::answer_together(row, operation).map(Some) }
}

/// Marks the first occurrence of each text.
fn first_of_each<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<bool> {
    let mut seen = std::collections::HashSet::new();
    texts.map(|text| seen.insert(text)).collect()
}

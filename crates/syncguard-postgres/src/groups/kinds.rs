//! The kinds of operations that share statements: their values, and what their rows mean.

use std::fmt;

use sqlx::postgres::PgRow;
use syncguard_core::{Acquired, Key, Lease, LockId, Operation, Result, Ttl};

use crate::operations::{Statement, Statements, Value, millis};
use crate::record;

/// One kind of operation, which can be sent alone or together with others.
pub(crate) trait Kind: fmt::Debug + Send + Sync + 'static {
    type Operation: Clone + Send + Sync + 'static;
    type Answer: Send + 'static;
    const OPERATION: Operation;

    fn alone(statements: &Statements) -> &Statement;
    fn values<'a>(operation: &'a Self::Operation, patience: Value<'a>) -> Vec<Value<'a>>;
    fn answer(row: Option<PgRow>, operation: &Self::Operation) -> Result<Self::Answer>;

    /// The statement of one operation that does not wait for others, because the lane does.
    fn at_once(statements: &Statements) -> &Statement;
    /// `None` if the operation must be sent again, by itself, and wait.
    fn answer_at_once(
        row: Option<PgRow>,
        operation: &Self::Operation,
    ) -> Result<Option<Self::Answer>>;

    fn together(statements: &Statements) -> &Statement;
    /// What no two operations of a statement may have in common.
    fn subject(operation: &Self::Operation) -> &str;
    fn columns<'a>(operations: impl Iterator<Item = &'a Self::Operation>) -> Columns<'a>;
    /// Whether the operation must be sent again, by itself, because a lock is taken.
    fn is_busy(row: &PgRow) -> Result<bool>;
    fn answer_together(row: PgRow, operation: &Self::Operation) -> Result<Self::Answer>;
}

/// The values of many operations.
pub(crate) struct Columns<'a> {
    first: Vec<&'a str>,
    second: Vec<&'a str>,
    /// In ms. `None` if the operations have no TTL.
    ttls: Option<Vec<i64>>,
}

impl Columns<'_> {
    pub(crate) fn values<'v>(&'v self, patience: Value<'v>) -> Vec<Value<'v>> {
        let mut values = vec![Value::Texts(&self.first), Value::Texts(&self.second)];
        match &self.ttls {
            Some(ttls) => values.extend([Value::AllMillis(ttls), patience]),
            None => values.push(Value::LAZY_COMMIT),
        }
        values
    }
}

/// Attempts to take a key.
#[derive(Debug)]
pub(crate) struct Acquires;

#[derive(Clone)]
pub(crate) struct Acquire {
    pub(crate) key: Key,
    pub(crate) id: LockId,
    pub(crate) ttl: Ttl,
}

impl Kind for Acquires {
    type Operation = Acquire;
    type Answer = Acquired;
    const OPERATION: Operation = Operation::Acquire;

    fn alone(statements: &Statements) -> &Statement {
        &statements.acquire
    }

    fn values<'a>(operation: &'a Acquire, patience: Value<'a>) -> Vec<Value<'a>> {
        let Acquire { key, id, ttl } = operation;
        vec![key.into(), id.into(), Value::ttl(*ttl), patience]
    }

    fn answer(row: Option<PgRow>, operation: &Acquire) -> Result<Acquired> {
        record::acquired(row, &operation.key, &operation.id)
    }

    fn at_once(statements: &Statements) -> &Statement {
        &statements.acquire_at_once
    }

    fn answer_at_once(row: Option<PgRow>, operation: &Acquire) -> Result<Option<Acquired>> {
        match row {
            Some(row) if Self::is_busy(&row)? => Ok(None),
            row => Self::answer(row, operation).map(Some),
        }
    }

    fn together(statements: &Statements) -> &Statement {
        &statements.acquire_many
    }

    fn subject(operation: &Acquire) -> &str {
        operation.key.as_str()
    }

    fn columns<'a>(operations: impl Iterator<Item = &'a Acquire>) -> Columns<'a> {
        let mut columns = Columns { first: Vec::new(), second: Vec::new(), ttls: Some(Vec::new()) };
        for operation in operations {
            columns.first.push(operation.key.as_str());
            columns.second.push(operation.id.as_str());
            columns.ttls.get_or_insert_default().push(millis(operation.ttl));
        }
        columns
    }

    fn is_busy(row: &PgRow) -> Result<bool> {
        record::flag(row, 4, Self::OPERATION)
    }

    fn answer_together(row: PgRow, operation: &Acquire) -> Result<Acquired> {
        Self::answer(Some(row), operation)
    }
}

/// Renewals of leases.
#[derive(Debug)]
pub(crate) struct Extends;

#[derive(Clone)]
pub(crate) struct Extend {
    pub(crate) lease: Lease,
    pub(crate) ttl: Ttl,
}

impl Kind for Extends {
    type Operation = Extend;
    type Answer = Option<Lease>;
    const OPERATION: Operation = Operation::Extend;

    fn alone(statements: &Statements) -> &Statement {
        &statements.extend
    }

    fn values<'a>(operation: &'a Extend, patience: Value<'a>) -> Vec<Value<'a>> {
        let Extend { lease, ttl } = operation;
        vec![lease.id().into(), Value::ttl(*ttl), patience, lease.key().into()]
    }

    fn answer(row: Option<PgRow>, operation: &Extend) -> Result<Option<Lease>> {
        let renewed = row.map(|row| record::extended(row, operation.lease.id())).transpose()?;
        Ok(renewed.map(|new| operation.lease.clone().with_expires_at(new.expires_at())))
    }

    fn at_once(statements: &Statements) -> &Statement {
        &statements.extend_at_once
    }

    // No row if the lease has ended, or if somebody has locked it.
    fn answer_at_once(row: Option<PgRow>, operation: &Extend) -> Result<Option<Option<Lease>>> {
        row.map(|row| Self::answer(Some(row), operation)).transpose()
    }

    fn together(statements: &Statements) -> &Statement {
        &statements.extend_many
    }

    fn subject(operation: &Extend) -> &str {
        operation.lease.id().as_str()
    }

    fn columns<'a>(operations: impl Iterator<Item = &'a Extend>) -> Columns<'a> {
        let mut columns = Columns { first: Vec::new(), second: Vec::new(), ttls: Some(Vec::new()) };
        for operation in operations {
            columns.first.push(operation.lease.id().as_str());
            columns.second.push(operation.lease.key().as_str());
            columns.ttls.get_or_insert_default().push(millis(operation.ttl));
        }
        columns
    }

    fn is_busy(row: &PgRow) -> Result<bool> {
        record::flag(row, 3, Self::OPERATION)
    }

    fn answer_together(row: PgRow, operation: &Extend) -> Result<Option<Lease>> {
        let live = record::is_live(&row, Self::OPERATION)?;
        Self::answer(live.then_some(row), operation)
    }
}

/// Releases of leases.
#[derive(Debug)]
pub(crate) struct Releases;

impl Kind for Releases {
    type Operation = Lease;
    type Answer = bool;
    const OPERATION: Operation = Operation::Release;

    fn alone(statements: &Statements) -> &Statement {
        &statements.release
    }

    fn values<'a>(lease: &'a Lease, patience: Value<'a>) -> Vec<Value<'a>> {
        vec![lease.id().into(), Value::LAZY_COMMIT, patience, lease.key().into()]
    }

    fn answer(row: Option<PgRow>, _: &Lease) -> Result<bool> {
        Ok(row.is_some())
    }

    fn at_once(statements: &Statements) -> &Statement {
        &statements.release_at_once
    }

    // No row if the lease has ended, or if somebody has locked it.
    fn answer_at_once(row: Option<PgRow>, lease: &Lease) -> Result<Option<bool>> {
        row.map(|row| Self::answer(Some(row), lease)).transpose()
    }

    fn together(statements: &Statements) -> &Statement {
        &statements.release_many
    }

    fn subject(lease: &Lease) -> &str {
        lease.id().as_str()
    }

    fn columns<'a>(leases: impl Iterator<Item = &'a Lease>) -> Columns<'a> {
        let (first, second) =
            leases.map(|lease| (lease.id().as_str(), lease.key().as_str())).unzip();
        Columns { first, second, ttls: None }
    }

    fn is_busy(row: &PgRow) -> Result<bool> {
        record::flag(row, 1, Self::OPERATION)
    }

    fn answer_together(row: PgRow, _: &Lease) -> Result<bool> {
        record::flag(&row, 0, Self::OPERATION)
    }
}

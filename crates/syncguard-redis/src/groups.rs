//! Group commit: operations that arrive together share a call.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::error::{Error as RedisError, ErrorKind};
use fred::types::Value;
use fred::types::config::Options;
use syncguard_backend::{Combiner, GroupCommit, Requests, TimeLimits};
use syncguard_core::{Error, ErrorCode, Operation, Result, Sent};
use tokio::runtime::Handle;

use crate::connection::{Connection, Connections, Established, InFlight};
use crate::error::{self, Fault, NO_RUNTIME};
use crate::operations::{MANY, Script};

/// With fewer lanes, four tasks wait longer than without groups. A call of so many operations keeps the
/// server busy for less than a millisecond. BENCHMARKS.md has the figures.
pub(crate) const DEFAULT: GroupCommit = GroupCommit { lanes: 8, cap: 32 };

/// One operation: a script with its keys and arguments.
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) script: &'static Script,
    pub(crate) keys: Vec<Str>,
    pub(crate) args: Vec<Value>,
}

/// How much longer than its limit an operation waits for its call. The call has a limit of its own, at which
/// its connection is closed.
const GRACE: Duration = Duration::from_millis(100);

/// Sends operations, alone or together.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    sender: Sender,
    /// `None` if each operation has a call of its own.
    combiner: Option<Combiner<Sender>>,
}

impl Groups {
    pub(crate) fn new(
        connections: Connections,
        options: Options,
        limit: Duration,
        group_commit: Option<GroupCommit>,
    ) -> Self {
        let sender = Sender { connections, options };
        let (unsent, unanswered) = (limit, limit + GRACE);
        // A call costs the server little beside its operations, so nothing is gained by waiting for another one.
        let limits = TimeLimits { short_request: Duration::ZERO, unsent, unanswered };
        let combiner = group_commit.map(|how| Combiner::new(sender.clone(), how, limits));
        Self { sender, combiner }
    }

    /// The options of every command.
    pub(crate) const fn options(&self) -> &Options {
        &self.sender.options
    }

    /// Sends an operation, and marks `sent` when there is a connection for it. It waits at most for the
    /// time limit to be sent, and then for that limit once more.
    pub(crate) async fn run(&self, call: Call, sent: &Sent) -> Result<Value> {
        let operation = call.operation;
        let Some(combiner) = &self.combiner else {
            return self.alone(call, sent).await;
        };
        if Handle::try_current().is_err() {
            let cause = RedisError::new(ErrorKind::Config, NO_RUNTIME);
            return Err(error::classify(cause, operation));
        }
        let answer = combiner.run(call, sent).await;
        answer.map_err(|error| error.with_operation(operation))
    }

    async fn alone(&self, call: Call, sent: &Sent) -> Result<Value> {
        let link =
            self.sender.link().await.map_err(|error| error.with_operation(call.operation))?;
        sent.mark();
        self.sender.send_one(&link, &call).await
    }
}

/// A connection, and its present state.
pub(crate) struct Link {
    connection: Connection,
    established: Arc<Established>,
}

/// Sends calls.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    connections: Connections,
    options: Options,
}

impl Requests for Sender {
    type Operation = Call;
    type Answer = Value;
    type Connection = Link;

    fn connection_at_hand(&self) -> Option<Link> {
        let connection = self.connections.next().clone();
        let established = connection.up()?;
        Some(Link { connection, established })
    }

    async fn connect(&self) -> Result<Link> {
        self.link().await
    }

    async fn send_alone(&self, link: Link, call: Call) -> Result<Value> {
        self.send_one(&link, &call).await
    }

    async fn send(&self, link: Link, calls: Vec<Call>) -> Vec<Result<Value>> {
        let (mut keys, mut args) = (Vec::new(), Vec::new());
        for call in &calls {
            debug_assert!(call.script.takes(call.keys.len(), call.args.len()));
            args.push(Value::from_static_str(call.script.name().unwrap_or_default()));
            args.extend(call.args.iter().cloned());
            keys.extend(call.keys.iter().cloned());
        }
        let in_flight = InFlight::new(&link.connection, &link.established);
        let client = link.established.client();
        // Boxed, as in `send_one`.
        let answer = Box::pin(MANY.call(client, &self.options, &keys, &args)).await;
        in_flight.heard();
        match answer {
            Ok(Value::Array(parts)) if parts.len() == calls.len() * 2 => {
                let parts = parts.chunks_exact(2).zip(&calls);
                parts.map(|(answer, call)| link.answer(answer, call)).collect()
            }
            Ok(_) => {
                let cause =
                    || RedisError::new(ErrorKind::Parse, "Not one answer for each operation.");
                calls.iter().map(|call| Err(error::classify(cause(), call.operation))).collect()
            }
            Err(cause) => {
                let all: Vec<_> = calls.iter().collect();
                let error = link.failed(cause, Operation::Connect, &all);
                let each = |call: &Call| Err(error.clone().with_operation(call.operation));
                calls.iter().map(each).collect()
            }
        }
    }

    fn abandoned(&self) -> Error {
        Error::new(ErrorCode::NetworkTimeout, Operation::Connect)
            .with_message("the runtime that sent the command has ended: try again")
    }

    fn unsent(&self) -> Error {
        if let Some((connection, cause)) = self.connections.none_in_time() {
            return connection.connector().error(cause, Operation::Connect);
        }
        Error::new(ErrorCode::ServiceUnavailable, Operation::Connect)
            .with_message("the operations before this one had no answer in time")
    }

    fn unanswered(&self) -> Error {
        Error::new(ErrorCode::NetworkTimeout, Operation::Connect)
            .with_message("the server did not answer in time")
    }
}

impl Sender {
    async fn link(&self) -> Result<Link> {
        let connection = self.connections.next().clone();
        match connection.established().await {
            Ok(established) => Ok(Link { connection, established }),
            Err(cause) => Err(connection.connector().error(cause, Operation::Connect)),
        }
    }

    async fn send_one(&self, link: &Link, call: &Call) -> Result<Value> {
        let in_flight = InFlight::new(&link.connection, &link.established);
        let client = link.established.client();
        // Boxed: it takes 5 KB, for which every operation would have room even while it waits.
        let answer =
            Box::pin(call.script.call(client, &self.options, &call.keys, &call.args)).await;
        in_flight.heard();
        answer.map_err(|cause| link.failed(cause, call.operation, &[call]))
    }
}

impl Link {
    /// The answer to one operation of a call.
    fn answer(&self, answer: &[Value], call: &Call) -> Result<Value> {
        match answer {
            [Value::Integer(0), answer] => Ok(answer.clone()),
            [_, text] => {
                let text = text.as_string().unwrap_or_default();
                let cause = RedisError::new(ErrorKind::Unknown, text);
                Err(self.failed(cause, call.operation, &[call]))
            }
            _ => Err(error::classify(RedisError::new(ErrorKind::Parse, ""), call.operation)),
        }
    }

    /// The error for a call that failed. The connection is replaced unless the error is about the call
    /// alone.
    fn failed(&self, cause: RedisError, operation: Operation, calls: &[&Call]) -> Error {
        let mut fault = Fault::of(&cause);
        if !fault.keeps_connection() {
            self.connection.condemn(&self.established, cause.kind());
            if self.established.was_silent() {
                fault = Fault::silence();
            }
        }
        let texts = calls.iter().flat_map(|call| {
            let keys = call.keys.iter().map(|key| Cow::Borrowed(&**key));
            keys.chain(call.args.iter().filter_map(Value::as_str))
        });
        let texts: Vec<_> = texts.collect();
        let secrets: Vec<_> = texts.iter().map(|text| &**text).collect();
        Error::new(fault.code, operation)
            .with_message(fault.message)
            .with_source(error::redacted(cause, &secrets))
    }
}

//! The trait through which a combiner sends requests. Each backend implements it.

use std::future::Future;

use syncguard_core::{Error, Result};

/// The requests that a [`Combiner`](crate::Combiner) sends to a server.
pub trait Requests: Send + Sync + Sized + 'static {
    /// What one caller wants.
    type Operation: Send + 'static;
    /// The answer to one operation.
    type Answer: Send + 'static;
    /// A connection, or the permission to use a shared one.
    type Connection: Send + 'static;

    /// Returns a connection that can be used at once, if there is one.
    fn connection_at_hand(&self) -> Option<Self::Connection>;

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// If there is none in time. The operations that were waiting when the call began fail with this
    /// error. For later ones, it is called again.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Sends a single operation. It must end within a time limit, and should not wait for other clients: the
    /// lane is not free until it ends.
    fn send_alone(
        &self,
        connection: Self::Connection,
        operation: Self::Operation,
    ) -> impl Future<Output = Result<Self::Answer>> + Send;

    /// Sends several operations in one request, and returns their answers in the same order. Like
    /// [`send_alone`](Self::send_alone), it must end within a time limit and should not wait for other
    /// clients.
    fn send(
        &self,
        connection: Self::Connection,
        operations: Vec<Self::Operation>,
    ) -> impl Future<Output = Vec<Result<Self::Answer>>> + Send;

    /// The error for an operation whose runtime ended before the answer came.
    fn abandoned(&self) -> Error;

    /// The error for an operation that waited for too long to be sent.
    fn unsent(&self) -> Error;

    /// The error for an operation that was sent in a request, and waited for too long for its answer.
    fn unanswered(&self) -> Error;
}

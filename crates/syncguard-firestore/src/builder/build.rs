//! From options to a backend: with a connection of its own, or on a client.

use std::env;
use std::ffi::OsString;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::tonic::codegen::http::uri::Authority;
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware};
use syncguard_core::{Error, ErrorCode, Operation, Result};

use super::FirestoreBackendBuilder;
use crate::backend::FirestoreBackend;
use crate::connect::{Access, Connector};
use crate::connection::Connection;
use crate::names::{Names, is_legal_name, leader_collection};
use crate::operations::Store;

const EMULATOR_HOST: &str = "FIRESTORE_EMULATOR_HOST";

impl FirestoreBackend {
    /// Connects to the database `(default)` of a project with Google's default credentials, or without
    /// any to the emulator that `FIRESTORE_EMULATOR_HOST` names.
    ///
    /// # Errors
    ///
    /// As [`FirestoreBackendBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the backend.
    pub async fn connect(project_id: &str) -> Result<Self> {
        Self::builder().connect(project_id).await
    }

    /// Takes a client of yours, with the defaults of the builder.
    ///
    /// # Errors
    ///
    /// As [`FirestoreBackendBuilder::build`].
    pub fn new(
        project_id: &str,
        client: &GoogleApi<FirestoreClient<GoogleAuthMiddleware>>,
    ) -> Result<Self> {
        Self::builder().build(project_id, client)
    }
}

impl FirestoreBackendBuilder {
    /// Connects to the database in this project.
    ///
    /// # Errors
    ///
    /// - [`ErrorCode::InvalidArgument`] if the configuration is bad, or if the certificate of the server
    ///   cannot be verified.
    /// - [`ErrorCode::AuthFailed`] if there are no credentials, or if they give no token.
    /// - [`ErrorCode::ServiceUnavailable`] if nobody listens at the address.
    /// - [`ErrorCode::NetworkTimeout`] if it takes longer than the command timeout.
    ///
    /// The message names the address, the database and the cause.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the backend.
    pub async fn connect(self, project_id: &str) -> Result<FirestoreBackend> {
        let names = self.names(project_id)?;
        let emulator = self.emulator_address(env::var_os(EMULATOR_HOST))?;
        let (url, access) = match (emulator, self.credentials.clone()) {
            (Some(address), _) => (format!("http://{address}"), Access::Emulator),
            (None, Some(credentials)) => (self.endpoint.clone(), Access::Given(credentials)),
            (None, None) => (self.endpoint.clone(), Access::Default),
        };
        let connector = Connector::new(&url, &names.database, access, self.command_timeout)?;
        let connection = Connection::new(connector);
        connection.link().await?;
        Ok(self.backend(names, connection))
    }

    /// Takes a client of yours, with its connection, credentials and headers.
    ///
    /// Make it with the database (`projects/{project}/databases/{database}`) as its cloud resource
    /// prefix. The timeouts are those of this backend.
    ///
    /// Prefer [`connect`](Self::connect): the backend cannot replace the connection of your client. If
    /// that falls silent, every operation fails with [`ErrorCode::NetworkTimeout`] until the client
    /// notices, which takes the SDK up to two minutes.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] if the configuration is bad.
    pub fn build(
        self,
        project_id: &str,
        client: &GoogleApi<FirestoreClient<GoogleAuthMiddleware>>,
    ) -> Result<FirestoreBackend> {
        let names = self.names(project_id)?;
        Ok(self.backend(names, Connection::of_client(client.get())))
    }

    fn backend(self, names: Names, connection: Connection) -> FirestoreBackend {
        let (clock, command_timeout) = (self.clock, self.command_timeout);
        let store = Store { connection, names, clock, command_timeout };
        FirestoreBackend::from_store(store, self.notifications)
    }

    /// Returns the emulator that this builder or the environment variable names.
    fn emulator_address(&self, variable: Option<OsString>) -> Result<Option<String>> {
        let from_environment = || variable.filter(|address| !address.is_empty());
        let Some(address) = self.emulator.clone().map(OsString::from).or_else(from_environment)
        else {
            return Ok(None);
        };
        let is_host_and_port = |address: &String| {
            address.parse::<Authority>().is_ok_and(|authority| authority.port().is_some())
        };
        match address.into_string().ok().filter(is_host_and_port) {
            Some(address) => Ok(Some(address)),
            None => Err(invalid("the emulator's address is not host:port")),
        }
    }

    /// Returns the names, if the whole configuration is right (E3).
    fn names(&self, project_id: &str) -> Result<Names> {
        let leaders = self.leaders.clone().unwrap_or_else(|| leader_collection(&self.locks));
        for (name, message) in [
            (project_id, "the project id is not legal"),
            (&self.database, "the database id is not legal"),
            (&self.locks, "the name of the lock collection is not legal"),
            (&self.fences, "the name of the fence collection is not legal"),
            (&leaders, "the name of the leader collection is not legal"),
        ] {
            if !is_legal_name(name) {
                return Err(invalid(message));
            }
        }
        if self.locks == self.fences || leaders == self.locks || leaders == self.fences {
            return Err(invalid(
                "the collections of locks, of fence counters and of leaders must differ",
            ));
        }
        if self.command_timeout.is_zero() {
            return Err(invalid("the command timeout must not be zero"));
        }
        Ok(Names::new(project_id, &self.database, &self.locks, &self.fences, &leaders)?)
    }
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument, Operation::Configure).with_message(message)
}

#[cfg(test)]
mod tests;

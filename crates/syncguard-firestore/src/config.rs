//! How a backend is set up.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::google_cloud_auth::credentials::anonymous;
use gcloud_sdk::tonic::codegen::http::{HeaderValue, uri::Authority};
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware, HeaderMap};
use syncguard_core::{Error, ErrorCode, Operation, Result, Timestamp};

use crate::backend::FirestoreBackend;
use crate::clock::ClientClock;
use crate::document::{Names, is_legal_name};
use crate::error::{classify_setup, failure};
use crate::store::Store;

const ADDRESS: &str = "https://firestore.googleapis.com";
const EMULATOR_HOST: &str = "FIRESTORE_EMULATOR_HOST";

/// Sets a [`FirestoreBackend`] up.
///
/// # Default
///
/// - database `(default)`
/// - collections `locks` and `fence_counters`, as every SyncGuard client has them
/// - time limit 5 seconds
/// - no notifications
/// - the clock of this machine
#[derive(Clone)]
#[must_use = "does nothing until it is connected or built"]
pub struct FirestoreBackendBuilder {
    project: String,
    database: String,
    locks: String,
    fences: String,
    emulator: Option<String>,
    time_limit: Duration,
    notifications: bool,
    clock: ClientClock,
}

impl FirestoreBackend {
    /// Connects to the database `(default)` of a project, with the SDK's own credentials, or
    /// without any to the emulator that `FIRESTORE_EMULATOR_HOST` names.
    ///
    /// # Errors
    ///
    /// As [`FirestoreBackendBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn connect(project_id: &str) -> Result<Self> {
        Self::builder(project_id).connect().await
    }

    /// Sets up a backend on a project.
    pub fn builder(project_id: &str) -> FirestoreBackendBuilder {
        FirestoreBackendBuilder::new(project_id)
    }
}

impl FirestoreBackendBuilder {
    pub(crate) fn new(project_id: &str) -> Self {
        Self {
            project: project_id.to_owned(),
            database: "(default)".to_owned(),
            locks: "locks".to_owned(),
            fences: "fence_counters".to_owned(),
            emulator: None,
            time_limit: Duration::from_secs(5),
            notifications: false,
            clock: ClientClock::default(),
        }
    }

    /// The database within the project; `(default)` by default.
    pub fn database(mut self, id: impl Into<String>) -> Self {
        self.database = id.into();
        self
    }

    /// The collection of the locks; `locks` by default. All services that contend for the same locks
    /// name the same collections.
    pub fn lock_collection(mut self, name: impl Into<String>) -> Self {
        self.locks = name.into();
        self
    }

    /// The collection of the fence counters; `fence_counters` by default. It must be another one
    /// than that of the locks, and nothing may ever be deleted from it. All services that contend
    /// for the same locks name the same one: else each counts its own fences, and they mean nothing.
    pub fn fence_collection(mut self, name: impl Into<String>) -> Self {
        self.fences = name.into();
        self
    }

    /// Connects to the emulator at this `host:port`, with neither scheme nor credentials, whatever
    /// the environment says.
    pub fn emulator(mut self, address: impl Into<String>) -> Self {
        self.emulator = Some(address.into());
        self
    }

    /// The longest that an operation may take, with all its requests; 5 seconds by default.
    ///
    /// A healthy Firestore answers within a tenth of a second, and the first call of a process has
    /// to fetch a token as well. The limit should stay below a third of the TTL, which is when a
    /// lease that is kept alive is renewed again: so a renewal that the server leaves unanswered
    /// leaves time for another. When the [connection vanished](crate#connections-that-vanish), the
    /// next renewals hang as well: only a TTL of four minutes or more outlasts that.
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Whether those who wait are told when a lock is released; off by default, since being told costs
    /// reads. Without, they try again by timer. See [what it does and costs](crate#waiting).
    pub const fn notifications(mut self, on: bool) -> Self {
        self.notifications = on;
        self
    }

    /// The clock that decides about leases: for tests, or for a machine that knows the time better
    /// than its system clock does.
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = ClientClock::new(now);
        self
    }

    /// Connects with the SDK's own credentials (Application Default Credentials), or without any to
    /// the emulator that `FIRESTORE_EMULATOR_HOST` names.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a bad configuration, [`ErrorCode::AuthFailed`] when there
    /// are no credentials, [`ErrorCode::ServiceUnavailable`] when nobody listens, and
    /// [`ErrorCode::NetworkTimeout`] when the connection takes longer than the time limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn connect(self) -> Result<FirestoreBackend> {
        let names = self.names()?;
        let emulator = self.emulator_address(env::var_os(EMULATOR_HOST))?;
        let connecting = async {
            let database = Some(names.database.clone());
            match emulator {
                Some(address) => {
                    let address = format!("http://{address}");
                    // What Google's clients send to an emulator: its rules do not apply to us, as
                    // those of the real service do not apply to a service account.
                    let mut headers = HeaderMap::new();
                    headers.insert("authorization", HeaderValue::from_static("Bearer owner"));
                    GoogleApi::from_function_with_credentials_and_headers(
                        FirestoreClient::new,
                        address,
                        database,
                        anonymous::Builder::new().build(),
                        headers,
                    )
                    .await
                }
                None => GoogleApi::from_function(FirestoreClient::new, ADDRESS, database).await,
            }
        };
        let api = match tokio::time::timeout(self.time_limit, connecting).await {
            Ok(connected) => connected.map_err(classify_setup)?,
            Err(elapsed) => {
                return Err(Error::new(ErrorCode::NetworkTimeout, Operation::Configure)
                    .with_message("no connection to Firestore within the time limit")
                    .with_source(elapsed));
            }
        };
        self.build(api)
    }

    /// Takes a client of yours, with its connection, credentials and headers.
    ///
    /// Make it with the database (`projects/{project}/databases/{database}`) as its cloud resource
    /// prefix. Limits and retries are those of this backend.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidArgument`] for a bad configuration.
    pub fn build(
        self,
        client: GoogleApi<FirestoreClient<GoogleAuthMiddleware>>,
    ) -> Result<FirestoreBackend> {
        let store = Store {
            names: self.names()?,
            api: client,
            clock: self.clock,
            time_limit: self.time_limit,
        };
        Ok(FirestoreBackend::new(store, self.notifications))
    }

    /// The emulator to connect to, if any, by this builder or by the environment variable.
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

    /// The names, if all of the configuration is right (E3).
    fn names(&self) -> Result<Names> {
        for (name, message) in [
            (&self.project, "the project id is not legal"),
            (&self.database, "the database id is not legal"),
            (&self.locks, "the lock collection's name is not legal"),
            (&self.fences, "the fence collection's name is not legal"),
        ] {
            if !is_legal_name(name) {
                return Err(invalid(message));
            }
        }
        if self.locks == self.fences {
            return Err(invalid("the two collections must differ"));
        }
        if self.time_limit.is_zero() {
            return Err(invalid("the time limit must not be zero"));
        }
        let names = Names::new(&self.project, &self.database, &self.locks, &self.fences)?;
        Ok(names)
    }
}

fn invalid(message: &'static str) -> Error {
    failure(ErrorCode::InvalidArgument).with_message(message)
}

impl fmt::Debug for FirestoreBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            project,
            database,
            locks,
            fences,
            emulator,
            time_limit,
            notifications,
            clock: _,
        } = self;
        f.debug_struct("FirestoreBackendBuilder")
            .field("project", project)
            .field("database", database)
            .field("locks", locks)
            .field("fences", fences)
            .field("emulator", emulator)
            .field("time_limit", time_limit)
            .field("notifications", notifications)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: &FirestoreBackendBuilder) -> bool {
        match builder.names() {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::InvalidArgument);
                assert_eq!(error.operation(), Operation::Configure);
                true
            }
        }
    }

    #[test]
    fn e3_configuration_is_checked() {
        let good = FirestoreBackendBuilder::new("my-project");
        assert!(!refused(&good));
        assert!(!refused(&good.clone().lock_collection("app locks")));
        for bad in ["", "a/b", ".", "..", "__locks__", &"x".repeat(1_501)] {
            assert!(refused(&good.clone().lock_collection(bad)), "{bad}");
            assert!(refused(&good.clone().fence_collection(bad)), "{bad}");
            assert!(refused(&good.clone().database(bad)), "{bad}");
            assert!(refused(&FirestoreBackendBuilder::new(bad)), "{bad}");
        }
        assert!(refused(&good.clone().lock_collection("fence_counters")));
        assert!(refused(&good.time_limit(Duration::ZERO)));
    }

    #[test]
    fn e3_the_emulators_address_is_host_and_port() {
        let builder = FirestoreBackendBuilder::new("p");
        let address = |given: Option<&str>, environment: Option<OsString>| {
            let builder = given.map_or(builder.clone(), |given| builder.clone().emulator(given));
            builder.emulator_address(environment)
        };
        assert_eq!(address(None, None).unwrap(), None);
        assert_eq!(address(None, Some("".into())).unwrap(), None);
        for good in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            assert_eq!(address(None, Some(good.into())).unwrap().unwrap(), good);
            assert_eq!(address(Some(good), Some("other:1".into())).unwrap().unwrap(), good);
        }
        let refused = |given, environment| {
            let error = address(given, environment).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert_eq!(error.operation(), Operation::Configure);
        };
        for bad in ["http://localhost:8080", "localhost:8080/", "local host:8080", "localhost"] {
            refused(None, Some(bad.into()));
            refused(Some(bad), None);
        }
        refused(Some(""), None);
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStringExt as _;
            refused(None, Some(OsString::from_vec(b"localhost:80\xff".to_vec())));
        }
    }

    #[tokio::test]
    async fn e3_configuration_is_checked_before_any_connection() {
        // No one listens there, which would be another error.
        let builder = FirestoreBackendBuilder::new("p").emulator("127.0.0.1:1");
        let error = builder.clone().database("a/b").connect().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ServiceUnavailable);
    }
}

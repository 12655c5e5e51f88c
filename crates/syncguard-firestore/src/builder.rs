//! The options of a backend.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::google_cloud_auth::credentials::Credentials;
use gcloud_sdk::tonic::codegen::http::uri::Authority;
use gcloud_sdk::{GoogleApi, GoogleAuthMiddleware};
use syncguard_core::{Error, ErrorCode, Operation, Result, Timestamp};

use crate::backend::FirestoreBackend;
use crate::clock::ClientClock;
use crate::connect::{Access, Connector};
use crate::connection::Connection;
use crate::names::{LOCKS, Names, is_legal_name, leader_collection};
use crate::operations::Store;

const ADDRESS: &str = "https://firestore.googleapis.com";
const EMULATOR_HOST: &str = "FIRESTORE_EMULATOR_HOST";

/// Configures a [`FirestoreBackend`].
///
/// # Default
///
/// - database `(default)`
/// - collections `locks` and `fence_counters`, as in every SyncGuard client, and `leaders`
/// - Google's default credentials and `https://firestore.googleapis.com`, or the emulator that
///   `FIRESTORE_EMULATOR_HOST` names
/// - command timeout 5 seconds
/// - no notifications
/// - the clock of this machine
///
/// # Examples
///
/// ```no_run
/// # async fn f() -> syncguard_firestore::Result<()> {
/// use std::time::Duration;
/// use syncguard_firestore::FirestoreBackend;
///
/// let backend = FirestoreBackend::builder()
///     .database("locks")
///     .command_timeout(Duration::from_secs(3))
///     .connect("my-project")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "does nothing until it is connected or built"]
pub struct FirestoreBackendBuilder {
    database: String,
    locks: String,
    fences: String,
    leaders: Option<String>,
    endpoint: String,
    emulator: Option<String>,
    credentials: Option<Credentials>,
    command_timeout: Duration,
    notifications: bool,
    clock: ClientClock,
}

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

    /// Returns a builder with the defaults.
    pub fn builder() -> FirestoreBackendBuilder {
        FirestoreBackendBuilder {
            database: "(default)".to_owned(),
            locks: LOCKS.to_owned(),
            fences: "fence_counters".to_owned(),
            leaders: None,
            endpoint: ADDRESS.to_owned(),
            emulator: None,
            credentials: None,
            command_timeout: Duration::from_secs(5),
            notifications: false,
            clock: ClientClock::default(),
        }
    }
}

impl FirestoreBackendBuilder {
    /// Sets the database within the project. The default is `(default)`.
    pub fn database(mut self, id: impl Into<String>) -> Self {
        self.database = id.into();
        self
    }

    /// Sets the collection of the locks. The default is `locks`.
    ///
    /// All services that contend for the same locks must name the same collections.
    pub fn lock_collection(mut self, name: impl Into<String>) -> Self {
        self.locks = name.into();
        self
    }

    /// Sets the collection of the fence counters. The default is `fence_counters`.
    ///
    /// It must differ from the collection of the locks, and nothing may ever be deleted from it. All
    /// services that contend for the same locks must name the same one. Otherwise each counts its own
    /// fences, and they protect nothing.
    pub fn fence_collection(mut self, name: impl Into<String>) -> Self {
        self.fences = name.into();
        self
    }

    /// Sets the collection of what leaders [publish](crate::Backend::publish). All services that elect the
    /// same leaders must name the same one, and each collection of locks needs one of its own.
    ///
    /// The default is `leaders`. With another [lock collection](Self::lock_collection), it is the name of
    /// that collection and `_leaders`.
    pub fn leader_collection(mut self, name: impl Into<String>) -> Self {
        self.leaders = Some(name.into());
        self
    }

    /// Sets the URL of the service. The default is `https://firestore.googleapis.com`.
    ///
    /// Set it to reach Firestore through Private Service Connect, for example. With `http://` there is
    /// no TLS.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into();
        self
    }

    /// Connects to the emulator at this `host:port`, without credentials, whatever the environment
    /// says.
    pub fn emulator(mut self, address: impl Into<String>) -> Self {
        self.emulator = Some(address.into());
        self
    }

    /// Sets the credentials. The default is Google's default credentials (Application Default
    /// Credentials).
    ///
    /// They refresh their token on the tokio runtime in which you make them, so that runtime must live
    /// as long as the backend. The default credentials move to another runtime if theirs ends.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Bounds each operation, with all its requests and with connecting. The default is 5 seconds.
    ///
    /// A healthy Firestore answers within a tenth of a second. The first call of a process also fetches
    /// a token. Keep the timeout at no more than half of the shortest TTL: a renewal that is not
    /// answered then leaves time for a second one, on a new connection. See [what happens when a
    /// connection fails](crate#recovery).
    pub const fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Turns notifications on or off. The default is off, because they cost reads.
    ///
    /// If they are off, this process does not listen, and its waiters try again by timer. Other
    /// processes still notice its releases, because they listen to the documents. See [what they do
    /// and cost](crate#waiting).
    pub const fn notifications(mut self, on: bool) -> Self {
        self.notifications = on;
        self
    }

    /// Sets the clock that decides about leases. Use it in tests, or on a machine that knows the time
    /// better than its system clock does.
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = ClientClock::new(now);
        self
    }

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

impl fmt::Debug for FirestoreBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            database,
            locks,
            fences,
            leaders,
            endpoint,
            emulator,
            credentials: _,
            command_timeout,
            notifications,
            clock: _,
        } = self;
        f.debug_struct("FirestoreBackendBuilder")
            .field("database", database)
            .field("locks", locks)
            .field("fences", fences)
            .field("leaders", leaders)
            .field("endpoint", endpoint)
            .field("emulator", emulator)
            .field("command_timeout", command_timeout)
            .field("notifications", notifications)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: &FirestoreBackendBuilder) -> bool {
        refused_in("my-project", builder)
    }

    fn refused_in(project: &str, builder: &FirestoreBackendBuilder) -> bool {
        match builder.names(project) {
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
        let good = FirestoreBackend::builder();
        assert!(!refused(&good));
        assert!(!refused(&good.clone().lock_collection("app locks")));
        for bad in ["", "a/b", ".", "..", "__locks__", &"x".repeat(1_501)] {
            assert!(refused(&good.clone().lock_collection(bad)), "{bad}");
            assert!(refused(&good.clone().fence_collection(bad)), "{bad}");
            assert!(refused(&good.clone().leader_collection(bad)), "{bad}");
            assert!(refused(&good.clone().database(bad)), "{bad}");
            assert!(refused_in(bad, &good), "{bad}");
        }
        assert!(refused(&good.clone().lock_collection("fence_counters")));
        assert!(refused(&good.clone().leader_collection("fence_counters")));
        assert!(refused(&good.clone().leader_collection("locks")));
        assert!(!refused(&good.clone().lock_collection("leaders")));
        assert!(refused(&good.command_timeout(Duration::ZERO)));
    }

    #[test]
    fn e3_the_emulators_address_is_host_and_port() {
        let builder = FirestoreBackend::builder();
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
        // Nobody listens there, which would be another error.
        let builder = FirestoreBackend::builder().emulator("127.0.0.1:1");
        let error = builder.clone().database("a/b").connect("p").await.unwrap_err();
        assert_eq!(
            (error.code(), error.operation()),
            (ErrorCode::InvalidArgument, Operation::Configure)
        );
        let error = builder.connect("p").await.unwrap_err();
        assert_eq!(
            (error.code(), error.operation()),
            (ErrorCode::ServiceUnavailable, Operation::Connect)
        );
    }

    #[tokio::test]
    async fn e3_an_endpoint_that_is_no_url_is_refused() {
        for bad in ["", "firestore", "ftp://firestore", "https://", "https://a b"] {
            let builder = FirestoreBackend::builder().endpoint(bad);
            let error = builder.connect("p").await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{bad}: {error}");
        }
    }
}

//! The options of a backend.

mod build;

use std::fmt;
use std::time::Duration;

use gcloud_sdk::google_cloud_auth::credentials::Credentials;
use syncguard_core::Timestamp;

use crate::backend::FirestoreBackend;
use crate::clock::ClientClock;
use crate::names::LOCKS;

const ADDRESS: &str = "https://firestore.googleapis.com";

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

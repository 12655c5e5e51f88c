//! How a connection to Firestore is made: address, TLS and credentials.

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use gcloud_sdk::google_cloud_auth::credentials::{Credentials, anonymous};
use gcloud_sdk::tonic::codegen::http::HeaderValue;
use gcloud_sdk::tonic::transport::{ClientTlsConfig, Endpoint};
use gcloud_sdk::{GCP_DEFAULT_SCOPES, GoogleAuthHeaders, GoogleAuthMiddleware, HeaderMap};
use syncguard_core::{Error, ErrorCode, Operation, Result};
use tokio::time::{Instant, timeout_at};

use crate::error::{connect_error, credentials_error, failure};

/// A client of Firestore. Clones share its connection.
pub(crate) type Api = FirestoreClient<GoogleAuthMiddleware>;

/// An idle connection is tested this often. Routers forget idle connections after minutes, and Google's
/// own clients of Bigtable test as often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Who a connection authenticates as.
#[derive(Clone)]
pub(crate) enum Access {
    /// Application Default Credentials.
    Default,
    Given(Credentials),
    /// The rules of an emulator do not apply to its owner, as those of the real service do not apply to
    /// a service account.
    Emulator,
}

/// Makes connections to one database.
pub(crate) struct Connector {
    endpoint: Endpoint,
    /// `projects/{project}/databases/{database}`
    database: String,
    /// The address and the database, for messages.
    whereto: String,
    access: Access,
    limit: Duration,
}

impl Connector {
    /// `limit` bounds each attempt to connect.
    pub(crate) fn new(url: &str, database: &str, access: Access, limit: Duration) -> Result<Self> {
        let not_a_url = || {
            Error::new(ErrorCode::InvalidArgument, Operation::Configure)
                .with_message("the endpoint is not a URL such as https://firestore.googleapis.com")
        };
        let (scheme, host) = url.split_once("://").ok_or_else(not_a_url)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(not_a_url()),
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| not_a_url().with_source(error))?
            .connect_timeout(limit)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(limit)
            .keep_alive_while_idle(true);
        if is_tls {
            // The dependency on tonic names the crypto provider. Without it, tonic panics if several are
            // compiled in and none is installed.
            endpoint = endpoint
                .tls_config(ClientTlsConfig::new().with_enabled_roots())
                .map_err(|error| not_a_url().with_source(error))?;
        }
        Ok(Self {
            endpoint,
            database: database.to_owned(),
            whereto: format!("Firestore at {host} for {database}"),
            access,
            limit,
        })
    }

    pub(crate) const fn is_emulator(&self) -> bool {
        matches!(self.access, Access::Emulator)
    }

    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Connects, with credentials that were made before if there are any.
    pub(crate) async fn connect(
        &self,
        known: Option<Arc<GoogleAuthHeaders>>,
    ) -> Result<(Api, Arc<GoogleAuthHeaders>)> {
        let deadline = Instant::now() + self.limit;
        let are_new = known.is_none();
        let credentials = match known {
            Some(credentials) => credentials,
            None => self.credentials().await?,
        };
        // A missing token is reported as that, not as a failed request.
        self.check_token(&credentials, are_new, deadline).await?;
        let channel = match timeout_at(deadline, self.endpoint.connect()).await {
            Ok(connected) => connected.map_err(|error| connect_error(&error, &self.whereto))?,
            Err(_) => return Err(self.too_late("no connection to")),
        };
        let database = Some(self.database.clone());
        let mut service = GoogleAuthMiddleware::new(channel, credentials.clone(), database)
            .map_err(|error| credentials_error(&error))?;
        if matches!(self.access, Access::Emulator) {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", HeaderValue::from_static("Bearer owner"));
            service.set_additional_headers(headers);
        }
        Ok((FirestoreClient::new(service), credentials))
    }

    async fn credentials(&self) -> Result<Arc<GoogleAuthHeaders>> {
        let headers = match &self.access {
            Access::Default => GoogleAuthHeaders::from_adc_with_scopes(GCP_DEFAULT_SCOPES.clone())
                .await
                .map_err(|error| credentials_error(&error))?,
            Access::Given(credentials) => credentials.clone().into(),
            Access::Emulator => anonymous::Builder::new().build().into(),
        };
        Ok(Arc::new(headers))
    }

    async fn check_token(
        &self,
        credentials: &GoogleAuthHeaders,
        are_new: bool,
        deadline: Instant,
    ) -> Result<()> {
        let missing =
            || are_new && matches!(self.access, Access::Default) && !has_default_credentials();
        let token = timeout_at(deadline, credentials.headers()).await;
        match token {
            Ok(Ok(_)) => Ok(()),
            // Then the SDK asks the metadata server, which only machines on Google Cloud reach.
            _ if missing() => Err(failure(ErrorCode::AuthFailed).with_message(
                "there are no Google credentials here: set GOOGLE_APPLICATION_CREDENTIALS to a key \
                 file, run `gcloud auth application-default login`, or run on Google Cloud with a \
                 service account",
            )),
            Ok(Err(error)) => Err(credentials_error(&error)),
            Err(_) => Err(self.too_late("no token for")),
        }
    }

    fn too_late(&self, what: &str) -> Error {
        failure(ErrorCode::NetworkTimeout).with_message(format!(
            "{what} {} within {:?}: check the address and the network, or raise command_timeout",
            self.whereto, self.limit
        ))
    }
}

/// Returns whether this machine names Application Default Credentials, or another metadata server.
fn has_default_credentials() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let in_home = |name, path| {
        env::var_os(name).is_some_and(|home| {
            Path::new(&home).join(path).join("application_default_credentials.json").exists()
        })
    };
    is_set("GOOGLE_APPLICATION_CREDENTIALS")
        || is_set("GCE_METADATA_HOST")
        || in_home("HOME", ".config/gcloud")
        || in_home("APPDATA", "gcloud")
}

//! TLS in a program with two providers of cryptography, none of which is chosen for the process.

use std::sync::Arc;

use contract_tests::servers::{Server, Spare};
use libtest_mimic::{Failed, Trial};
use syncguard::{Error, ErrorCode, LockManager};
use syncguard_firestore::FirestoreBackend;
use syncguard_firestore::gcloud_sdk::google_cloud_auth::credentials::anonymous;
use syncguard_postgres::PostgresBackend;
use syncguard_redis::RedisBackend;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Duration, sleep, timeout};

use crate::certificates::{Certificate, NAMED, UNNAMED};
use crate::{LIMIT, Outcome, in_own_process, lock_once};

/// Every order of two and of three backends.
const ORDERS: &[&[&str]] = &[
    &["redis", "postgres"],
    &["redis", "firestore"],
    &["postgres", "redis"],
    &["postgres", "firestore"],
    &["firestore", "redis"],
    &["firestore", "postgres"],
    &["redis", "postgres", "firestore"],
    &["redis", "firestore", "postgres"],
    &["postgres", "redis", "firestore"],
    &["postgres", "firestore", "redis"],
    &["firestore", "redis", "postgres"],
    &["firestore", "postgres", "redis"],
];

pub(crate) fn trials(runtime: &Handle) -> Vec<Trial> {
    let servers = Arc::new(OnceCell::new());
    let trial = |name: String, steps: Vec<&'static str>, is_trusted: bool| {
        let (runtime, servers) = (runtime.clone(), servers.clone());
        Trial::test(format!("tls::{name}"), move || {
            // The last trial drops the servers, inside the runtime.
            let _inside = runtime.enter();
            let servers = servers;
            let started = runtime.block_on(servers.get_or_init(Servers::start));
            started.as_ref().map_err(Failed::from)?.run(&steps, is_trusted)
        })
    };
    let orders = ORDERS
        .iter()
        .map(|order| trial(format!("f3_{}", order.join("_then_")), order.to_vec(), true));
    let mut all: Vec<_> = orders.collect();
    let refused = "e1_a_certificate_that_cannot_be_verified_is_permanent".to_owned();
    all.push(trial(refused, vec!["unknown-issuer"], false));
    let misnamed = "e1_a_certificate_for_another_host_is_permanent".to_owned();
    all.push(trial(misnamed, vec!["wrong-host"], true));
    all
}

/// Servers that speak TLS with a certificate that signs itself.
struct Servers {
    redis: Spare,
    postgres: Spare,
    certificate: Certificate,
    /// Another one, which no server uses.
    stranger: Certificate,
    _directory: TempDir,
}

const CERTIFICATE: &str = "/tmp/tls.crt";
const KEY: &str = "/tmp/tls.key";

impl Servers {
    async fn start() -> Result<Self, String> {
        Self::try_start().await.map_err(|error| error.to_string())
    }

    async fn try_start() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let certificate = Certificate::make(directory.path(), "server")?;
        let stranger = Certificate::make(directory.path(), "stranger")?;
        let files =
            |mode| [(CERTIFICATE, &*certificate.text, 0o644), (KEY, &*certificate.key, mode)];

        let redis = ["redis-server", "--save", "", "--protected-mode", "no", "--port", "0"];
        let tls = ["--tls-port", "6379", "--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY];
        let roots = ["--tls-ca-cert-file", CERTIFICATE, "--tls-auth-clients", "no"];
        let command = [&redis[..], &tls, &roots].concat();
        let redis = Server::redis().spare_with(&command, &files(0o644)).await?;

        let server = Server::postgres();
        let certificate_file = format!("ssl_cert_file={CERTIFICATE}");
        let postgres = if server.is_stand_in() {
            let key_file = format!("ssl_key_file={KEY}");
            let command = ["-c", "ssl=on", "-c", &certificate_file, "-c", &key_file];
            // The server refuses a key that all may read. It runs in the group of the key's owner.
            server.spare_with(&command, &files(0o640)).await?
        } else {
            let script = format!(
                "install -o postgres -m 600 {KEY} /tmp/own.key && exec docker-entrypoint.sh postgres \
                 -c ssl=on -c {certificate_file} -c ssl_key_file=/tmp/own.key"
            );
            server.spare_with(&["bash", "-c", &script], &files(0o600)).await?
        };
        let url = format!("{}/postgres?sslmode=require", postgres.url);
        let up = async {
            while PostgresBackend::connect(&url).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, up).await.map_err(|_| "Postgres does not start with TLS")?;
        Ok(Self { redis, postgres, certificate, stranger, _directory: directory })
    }

    /// Runs these steps in a process of their own, whose system trusts the server or not.
    fn run(&self, steps: &[&str], is_trusted: bool) -> Result<(), Failed> {
        let [redis, postgres] = [self.redis.port, self.postgres.port].map(|port| port.to_string());
        let trusted = if is_trusted { &self.certificate } else { &self.stranger };
        let certificate = trusted.path.to_string_lossy();
        let arguments = ["tls", &redis, &postgres, &certificate];
        let roots = ("SSL_CERT_FILE", trusted.path.as_path());
        in_own_process(&[&arguments[..], steps].concat(), &[roots])
    }
}

/// The ports of the servers, and the file of the certificate that is trusted.
pub(crate) struct Addresses<'a> {
    pub(crate) redis: &'a str,
    pub(crate) postgres: &'a str,
    pub(crate) certificate: &'a str,
}

/// Runs these steps in this process.
pub(crate) async fn alone(servers: &Addresses<'_>, steps: &[&str]) -> Outcome {
    for step in steps {
        match *step {
            "redis" => redis(servers).await?,
            "postgres" => postgres(servers).await?,
            "firestore" => firestore(servers).await?,
            "unknown-issuer" => refused(servers, NAMED).await,
            "wrong-host" => refused(servers, UNNAMED).await,
            _ => return Err("no such step".into()),
        }
    }
    Ok(())
}

impl Addresses<'_> {
    fn redis(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.redis)
    }

    fn postgres(&self, host: &str, mode: &str) -> String {
        let (port, certificate) = (self.postgres, self.certificate);
        format!(
            "postgres://postgres:postgres@{host}:{port}/postgres?sslmode={mode}&sslrootcert={certificate}"
        )
    }
}

async fn redis(servers: &Addresses<'_>) -> Outcome {
    lock_once(&LockManager::new(RedisBackend::connect(&servers.redis(NAMED)).await?)).await
}

async fn postgres(servers: &Addresses<'_>) -> Outcome {
    for (mode, host) in [("require", NAMED), ("verify-ca", UNNAMED), ("verify-full", NAMED)] {
        let backend = PostgresBackend::connect(&servers.postgres(host, mode)).await?;
        backend.setup_schema().await?;
        lock_once(&LockManager::new(backend)).await?;
    }
    Ok(())
}

/// The emulator has no TLS, and the backend trusts no roots but those of the public authorities. So the
/// certificate is refused. That needs a provider as well.
async fn firestore(servers: &Addresses<'_>) -> Outcome {
    let builder = FirestoreBackend::builder()
        .endpoint(format!("https://{NAMED}:{}", servers.redis))
        .credentials(anonymous::Builder::new().build());
    let error = builder.connect("p").await.expect_err("the certificate signs itself");
    assert_refused(&error);
    Ok(())
}

async fn refused(servers: &Addresses<'_>, host: &str) {
    let error = RedisBackend::connect(&servers.redis(host)).await.expect_err("not trusted");
    assert_refused(&error);
    assert!(error.to_string().contains("install the root"), "{error}");
    let url = servers.postgres(host, "verify-full");
    let error = PostgresBackend::connect(&url).await.expect_err("not trusted");
    assert_refused(&error);
    assert!(error.to_string().contains("sslrootcert"), "{error}");
}

/// A certificate that cannot be verified is no outage, so the code says that a retry is useless.
fn assert_refused(error: &Error) {
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

//! The servers on which the suite runs.
//!
//! A server starts in a container when the first trial asks for it. It is removed when its
//! [`Server`] is dropped, or when the process is interrupted. If an environment variable names a
//! running server or another image, that is used instead: `SYNCGUARD_REDIS_URL`,
//! `SYNCGUARD_REDIS_IMAGE`, and so on.

use std::env;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt,
    TestcontainersError,
};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::ports::free_port;

/// How long a server may take to accept clients after it reports that it is ready. The official
/// image of Postgres starts twice.
const STARTING: Duration = Duration::from_secs(30);

/// How long a container may take to start on a busy machine.
const CONTAINER_STARTING: Duration = Duration::from_secs(300);

/// One server. It starts when the first client asks for it.
#[derive(Debug)]
pub struct Server {
    /// The name in environment variables, such as `SYNCGUARD_REDIS_URL`.
    name: &'static str,
    official: &'static str,
    port: u16,
    ready: &'static str,
    environment: &'static [(&'static str, &'static str)],
    /// The command for the official image, if the image needs one.
    command: &'static [&'static str],
    /// The part of the server's URL before host and port.
    scheme: &'static str,
    running: OnceCell<Result<Running, String>>,
}

#[derive(Debug)]
struct Running {
    url: String,
    /// Set if the server was started here. Dropping it removes the container.
    container: Option<ContainerAsync<GenericImage>>,
}

type Connecting<B> = Pin<Box<dyn Future<Output = Result<B, String>> + Send>>;

impl Server {
    /// Redis.
    #[must_use]
    pub const fn redis() -> Self {
        Self {
            name: "REDIS",
            official: "redis:7.0",
            port: 6379,
            ready: "Ready to accept connections",
            environment: &[],
            command: &[],
            scheme: "redis://",
            running: OnceCell::const_new(),
        }
    }

    /// Postgres.
    #[must_use]
    pub const fn postgres() -> Self {
        Self {
            name: "POSTGRES",
            official: "postgres:15",
            port: 5432,
            // A standby accepts "read-only connections".
            ready: "database system is ready to accept",
            environment: &[("POSTGRES_PASSWORD", "postgres")],
            command: &[],
            scheme: "postgres://postgres:postgres@",
            running: OnceCell::const_new(),
        }
    }

    /// Google's Firestore emulator.
    #[must_use]
    pub const fn firestore() -> Self {
        Self {
            name: "FIRESTORE",
            official: "google/cloud-sdk:emulators",
            port: 8080,
            ready: "Dev App Server is now running",
            environment: &[],
            command: &["gcloud", "emulators", "firestore", "start", "--host-port=0.0.0.0:8080"],
            scheme: "http://",
            running: OnceCell::const_new(),
        }
    }

    /// Returns a function that makes clients of this server. The first client starts the server.
    pub fn clients<B, E, F>(
        self: &Arc<Self>,
        connect: impl Fn(String) -> F + Send + Sync + 'static,
    ) -> impl Fn() -> Connecting<B> + Send + Sync + 'static
    where
        B: Send + 'static,
        E: Display,
        F: Future<Output = Result<B, E>> + Send + 'static,
    {
        let (server, connect) = (self.clone(), Arc::new(connect));
        move || {
            let (server, connect) = (server.clone(), connect.clone());
            Box::pin(async move { server.client(connect.as_ref()).await })
        }
    }

    /// Makes a client of this server, which starts if it does not run yet.
    pub async fn client<B, E, F>(
        &self,
        connect: &(impl Fn(String) -> F + Sync),
    ) -> Result<B, String>
    where
        E: Display,
        F: Future<Output = Result<B, E>>,
    {
        let running = self.running.get_or_init(|| self.run()).await;
        let running = running.as_ref().map_err(Clone::clone)?;
        let deadline = Instant::now() + STARTING;
        loop {
            let refusal = match connect(running.url.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) => format!("no connection to {}: {error}", self.name),
            };
            if running.container.is_none() || Instant::now() >= deadline {
                return Err(refusal);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn run(&self) -> Result<Running, String> {
        if let Some(url) = self.variable("URL") {
            return Ok(Running { url, container: None });
        }
        self.start().await.map_err(|error| {
            format!(
                "no {name} server: start Docker, or set SYNCGUARD_{name}_URL to a running one, or \
                 use contract-tests/run, which installs what is missing ({error})",
                name = self.name
            )
        })
    }

    /// Starts another server of this kind, for a trial that breaks it. It is always a container.
    ///
    /// It runs `command`, or the default of the image if `command` is empty. The command must work
    /// in every image of this kind.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing.
    pub async fn spare(&self, command: &[&str]) -> Result<Spare, String> {
        self.spare_with(command, &[]).await
    }

    /// Starts another server like [`spare`](Self::spare), with files of these paths, contents and modes.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing.
    pub async fn spare_with(
        &self,
        command: &[&str],
        files: &[(&str, &str, u32)],
    ) -> Result<Spare, String> {
        let mut others = 0..4;
        let started = loop {
            let started = self.start_spare(command, files).await;
            if !started.as_ref().is_err_and(is_port_taken) || others.next().is_none() {
                break started;
            }
        };
        started.map_err(|error| {
            format!(
                "no {} server for this trial alone: start Docker, or use contract-tests/run, which \
                 installs it ({error})",
                self.name
            )
        })
    }

    async fn start_spare(
        &self,
        command: &[&str],
        files: &[(&str, &str, u32)],
    ) -> Result<Spare, TestcontainersError> {
        // If Docker chose the port, it would change with every start.
        let port = free_port();
        let mut request = self.request().with_mapped_port(port, self.port.tcp());
        if !command.is_empty() {
            request = request.with_cmd(command.iter().copied());
        }
        if !files.is_empty() {
            // Docker tells the address on this network, for other containers.
            request = request.with_network("bridge");
        }
        for (path, contents, mode) in files {
            let target = CopyTargetOptions::new(*path).with_mode(*mode);
            request = request.with_copy_to(target, contents.as_bytes().to_vec());
        }
        Ok(Spare { url: self.url(port), port, container: request.start().await? })
    }

    /// Starts a server on the network of this host, for a trial whose servers talk to each other and
    /// tell clients where they are. The command must name a free port.
    ///
    /// `file` is a configuration file to write into the container: its path and its text. The server
    /// is up when it prints `ready`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing.
    pub async fn on_host(
        &self,
        command: &[&str],
        file: Option<(&str, String)>,
        ready: &str,
    ) -> Result<ContainerAsync<GenericImage>, String> {
        let image = self.image(ready);
        let mut request = image.with_network("host").with_cmd(command.iter().copied());
        if let Some((path, text)) = file {
            let target = CopyTargetOptions::new(path).with_mode(0o666);
            request = request.with_copy_to(target, text.into_bytes());
        }
        request.start().await.map_err(|error| {
            format!("no {} server on the network of this host: start Docker ({error})", self.name)
        })
    }

    async fn start(&self) -> Result<Running, TestcontainersError> {
        let container = self.request().start().await?;
        let port = container.get_host_port_ipv4(self.port.tcp()).await?;
        Ok(Running { url: self.url(port), container: Some(container) })
    }

    fn url(&self, port: u16) -> String {
        format!("{}127.0.0.1:{port}", self.scheme)
    }

    fn request(&self) -> ContainerRequest<GenericImage> {
        self.image(self.ready)
    }

    fn image(&self, ready: &str) -> ContainerRequest<GenericImage> {
        let given = self.variable("IMAGE");
        let (image, command) = match &given {
            Some(image) => (image.as_str(), &[][..]),
            None => (self.official, self.command),
        };
        // A colon before the last slash belongs to the port of a registry.
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image, "latest"),
        };
        let mut request = GenericImage::new(name, tag)
            .with_exposed_port(self.port.tcp())
            .with_wait_for(WaitFor::message_on_either_std(ready))
            // contract-tests/run finds the containers of an interrupted run by this label.
            .with_label("syncguard.test-run", test_run())
            .with_startup_timeout(CONTAINER_STARTING)
            .with_cmd(command.iter().copied());
        for (variable, value) in self.environment {
            request = request.with_env_var(*variable, *value);
        }
        request
    }

    /// Whether the image was built by `stand-in-images` or for `contract-tests/versions`.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        self.variable("IMAGE").is_some_and(|image| image.starts_with("syncguard-stand-in/"))
    }

    /// Whether an environment variable names a running server whose URL starts with `scheme`.
    #[must_use]
    pub fn is_at(&self, scheme: &str) -> bool {
        self.variable("URL").is_some_and(|url| url.starts_with(scheme))
    }

    fn variable(&self, what: &str) -> Option<String> {
        let value = env::var(format!("SYNCGUARD_{}_{what}", self.name));
        value.ok().filter(|value| !value.is_empty())
    }
}

/// A server for one trial alone. It keeps its port when it stops and starts, and dropping it
/// removes the container.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spare {
    /// The URL of the server on this host.
    pub url: String,
    /// The port in the URL.
    pub port: u16,
    /// To stop, pause and start it.
    pub container: ContainerAsync<GenericImage>,
}

impl Spare {
    /// Pauses the server: see [`pause`].
    ///
    /// # Errors
    ///
    /// As [`pause`].
    pub async fn pause(&self) -> Result<(), TestcontainersError> {
        pause(&self.container).await
    }
}

/// Pauses a server, which then answers nothing and keeps its connections.
///
/// Docker gives up if a process does not freeze in time, as on a busy machine. So this tries again.
///
/// # Errors
///
/// As Docker fails, for the third time.
pub async fn pause(container: &ContainerAsync<GenericImage>) -> Result<(), TestcontainersError> {
    let mut others = 0..2;
    loop {
        let paused = container.pause().await;
        if paused.is_ok() || others.next().is_none() {
            return paused;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Whether another process took the port after it was found free. Docker reports that only as text.
fn is_port_taken(error: &TestcontainersError) -> bool {
    let error = error.to_string();
    error.contains("port is already allocated") || error.contains("address already in use")
}

fn test_run() -> String {
    env::var("SYNCGUARD_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string())
}

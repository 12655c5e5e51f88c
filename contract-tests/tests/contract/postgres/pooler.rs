//! The suite through a PgBouncer in transaction mode, which hands each transaction to another
//! connection of the server.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use syncguard_postgres::PostgresBackend;
use syncguard_postgres::sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, backend, pool_of};
use contract_tests::servers::Server;

pub(super) fn suite(runtime: &Handle, server: &Arc<Server>) -> Vec<Trial> {
    let (server, pooler) = (server.clone(), Arc::new(OnceCell::new()));
    contract_tests::trials(runtime, "postgres_pgbouncer", move || {
        let (server, pooler) = (server.clone(), pooler.clone());
        async move {
            let direct = backend(&server, 1, |options| options).await?;
            let options = PgConnectOptions::clone(&direct.pool().connect_options());
            let pooler = pooler.get_or_try_init(async || Pooler::start(&options)).await?;
            // PgBouncer before 1.21 knows nothing of prepared statements.
            let options = PgConnectOptions::new()
                .host("127.0.0.1")
                .port(pooler.port)
                .username("postgres")
                .database(options.get_database().unwrap_or("postgres"))
                .statement_cache_capacity(0);
            let deadline = Instant::now() + Duration::from_secs(10);
            let pool = loop {
                match pool_of(3).connect_with(options.clone()).await {
                    Ok(pool) => break pool,
                    Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                    Err(error) => return Err(format!("no connection to pgbouncer: {error}")),
                }
            };
            let patient = PostgresBackend::builder(pool).command_timeout(PATIENCE);
            let backend = patient.build().map_err(|error| error.to_string())?;
            backend.setup_schema().await.map_err(|error| error.to_string())?;
            Ok(backend)
        }
    })
}

/// A PgBouncer, which ends when dropped.
#[derive(Debug)]
struct Pooler {
    process: Child,
    port: u16,
    folder: PathBuf,
}

impl Pooler {
    fn start(server: &PgConnectOptions) -> Result<Self, String> {
        Self::try_start(server).map_err(|error| {
            format!("this needs the program pgbouncer, from the package of that name ({error})")
        })
    }

    fn try_start(server: &PgConnectOptions) -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("syncguard-pgbouncer-{port}"));
        fs::create_dir_all(&folder)?;
        let (host, server_port) = (server.get_host(), server.get_port());
        let user = server.get_username();
        let settings = folder.join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n\
                 * = host={host} port={server_port} user={user} password={password}\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = any\n\
                 pool_mode = transaction\n\
                 default_pool_size = 4\n\
                 server_round_robin = 1\n\
                 ignore_startup_parameters = extra_float_digits\n",
                password = "postgres",
            ),
        )?;
        let process = Command::new("pgbouncer")
            // It refuses to run as root; an option that others may not use is ignored for them.
            .args(["--quiet", "--user", "nobody"])
            .arg(&settings)
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { process, port, folder })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and nothing depends on it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

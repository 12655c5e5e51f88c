//! A primary server with a standby that streams from it.

use std::time::Duration;

use contract_tests::servers::{Server, Spare};
use syncguard_postgres::sqlx::{self, Connection, PgConnection};
use tokio::time::{Instant, sleep};

use super::{Outcome, PATIENCE};

/// A primary and its standby, each in a container.
pub(super) struct Replicas {
    pub(super) primary: Spare,
    pub(super) standby: Spare,
}

/// Where the trials put the file that lets a standby connect.
const HBA_FILE: &str = "/tmp/pg_hba.conf";
const HBA: &str = "local all all trust\n\
    host all all all scram-sha-256\n\
    host replication all all scram-sha-256\n";

impl Replicas {
    pub(super) async fn start(server: &Server) -> Outcome<Self> {
        let hba = format!("hba_file={HBA_FILE}");
        // The standby of an image with a database in it needs all that was written since.
        let keep = ["-c", "wal_keep_segments=64"];
        let old =
            std::env::var("SYNCGUARD_POSTGRES_IMAGE").is_ok_and(|image| image.ends_with("12"));
        let keep = if old { keep } else { ["-c", "wal_keep_size=1GB"] };
        let command = ["-c", &hba, keep[0], keep[1], "-c", "fsync=off"];
        let primary = server.spare_with(&command, &[(HBA_FILE, HBA, 0o644)]).await?;
        let address = primary.container.get_bridge_ip_address().await?;
        let source = format!("host={address} port=5432 user=postgres password=postgres");
        let standby = if server.is_stand_in() {
            // All containers of such an image begin with the same database.
            let source = format!("primary_conninfo={source}");
            let command = [&command[..], &["-c", &source]].concat();
            let signal = ("/data/standby.signal", "", 0o644);
            server.spare_with(&command, &[(HBA_FILE, HBA, 0o644), signal]).await?
        } else {
            let script = format!(
                "install -d -o postgres -m 700 /tmp/standby && exec gosu postgres bash -c \
                 'pg_basebackup -R -D /tmp/standby -d \"{source}\" && exec postgres -D /tmp/standby \
                 -c hba_file={HBA_FILE} -c fsync=off'"
            );
            server.spare_with(&["bash", "-c", &script], &[(HBA_FILE, HBA, 0o644)]).await?
        };
        Ok(Self { primary, standby })
    }

    /// Waits until the standby has everything that the primary has committed.
    pub(super) async fn until_in_sync(&self) -> Outcome {
        let mut primary = PgConnection::connect(&self.primary.url).await?;
        let mut standby = PgConnection::connect(&self.standby.url).await?;
        let written: String =
            sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut primary).await?;
        let deadline = Instant::now() + PATIENCE;
        let replayed = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)";
        while !sqlx::query_scalar::<_, bool>(replayed)
            .bind(&written)
            .fetch_one(&mut standby)
            .await?
        {
            assert!(Instant::now() < deadline, "the standby does not follow");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Makes the standby the primary, as a failover manager does.
    pub(super) async fn promote(&self) -> Outcome {
        let mut standby = PgConnection::connect(&self.standby.url).await?;
        let promoted: bool =
            sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut standby).await?;
        assert!(promoted, "the standby was not promoted");
        Ok(())
    }
}

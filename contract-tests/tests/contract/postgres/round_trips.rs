//! Counts the round trips of each operation with a proxy between client and server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncguard_postgres::sqlx::postgres::PgConnectOptions;
use syncguard_postgres::{Acquired, Backend, Key, PostgresBackend, Publication};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::notifications::{Fixture, assert_notified, listening};
use super::{Outcome, cases, fresh_id, fresh_key, lease, minute, pool_of};
use contract_tests::servers::Server;

cases![
    each_operation_is_one_round_trip,
    each_operation_is_one_round_trip_with_statements_sent_as_text
];

async fn each_operation_is_one_round_trip(server: Arc<Server>) -> Outcome {
    counted(&server, |options| options).await
}

async fn each_operation_is_one_round_trip_with_statements_sent_as_text(
    server: Arc<Server>,
) -> Outcome {
    counted(&server, |options| options.statement_cache_capacity(0)).await
}

async fn counted(server: &Server, options: fn(PgConnectOptions) -> PgConnectOptions) -> Outcome {
    let fixture = Fixture::new(server).await?;
    let wire = Wire::to(&fixture.options()).await?;
    let through_wire = options(fixture.options()).host("127.0.0.1").port(wire.port);
    let pool = pool_of(1).connect_lazy_with(through_wire);
    let backend = fixture.named().notifications(false).build(pool)?;
    // The first use of a statement prepares it.
    every_operation(&backend, &fresh_key()).await?;
    let trips = async |key: &Key| {
        let before = wire.trips.load(Ordering::SeqCst);
        every_operation(&backend, key).await?;
        Outcome::Ok(wire.trips.load(Ordering::SeqCst) - before)
    };
    assert_eq!(trips(&fresh_key()).await?, OPERATIONS);

    // A release that sends a notification takes no extra round trip.
    let (waiter, key) = (fixture.waiter()?, fresh_key());
    let notification = listening(&waiter, &key).await;
    assert_eq!(trips(&key).await?, OPERATIONS);
    assert_notified(notification).await;
    Ok(())
}

async fn every_operation(backend: &PostgresBackend, key: &Key) -> Outcome {
    let id = fresh_id();
    let held = lease(backend.acquire(key, &id, minute()).await)?.expect("it was free");
    let again = backend.acquire(key, &fresh_id(), minute()).await?;
    assert!(matches!(again, Acquired::Held { .. }));
    assert!(backend.extend(&held, minute()).await?.is_some());
    let held = backend.handoff(&held, &fresh_id(), minute()).await?.expect("it was live");
    assert!(backend.get(key).await?.is_some() && backend.find(held.id()).await?.is_some());
    assert!(backend.extend_by_id(held.id(), minute()).await?.is_some());
    let publication = Publication::new(held.fence(), "node", "value")?;
    assert!(backend.publish(&held, &publication, minute()).await?);
    assert!(backend.published(key).await?.is_some());
    backend.withdraw(&held).await?;
    assert!(backend.release(&held).await?);
    assert!(!backend.release_by_id(held.id()).await?);
    Ok(())
}

const OPERATIONS: u64 = 12;

/// A proxy for one connection at a time.
struct Wire {
    port: u16,
    trips: Arc<AtomicU64>,
}

impl Wire {
    async fn to(options: &PgConnectOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let trips = Arc::new(AtomicU64::new(0));
        let (host, to, counted) =
            (options.get_host().to_owned(), options.get_port(), trips.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), to)).await?;
                pass_on(client, server, &counted).await?;
            }
            std::io::Result::Ok(())
        });
        Ok(Self { port, trips })
    }
}

/// Forwards both directions, and counts a round trip when the client sends after the server
/// answered.
///
/// A lone Sync does not count: with it, the pool checks whether the connection is alive.
async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    trips: &AtomicU64,
) -> std::io::Result<()> {
    const SYNC: &[u8] = b"S\0\0\0\x04";
    let (mut sent, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut answered = true;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => match read? {
                0 => return Ok(()),
                length => {
                    if answered && &sent[..length] != SYNC {
                        trips.fetch_add(1, Ordering::SeqCst);
                        answered = false;
                    }
                    server.write_all(&sent[..length]).await?;
                }
            },
            read = server.read(&mut answer) => match read? {
                0 => return Ok(()),
                length => {
                    answered = true;
                    client.write_all(&answer[..length]).await?;
                }
            },
        }
    }
}

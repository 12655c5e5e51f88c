//! The connection that listens, in a network that falls silent.

use std::sync::Arc;
use std::time::Duration;

use contract_tests::forwarder::Forwarder;
use contract_tests::servers::Server;
use syncguard_postgres::Backend;
use tokio::time::{sleep, timeout};

use super::notifications::{Fixture, assert_notified, listening};
use super::{Outcome, PATIENCE, cases};

cases![a_silent_connection_is_closed_when_it_is_replaced_or_not_needed];

async fn a_silent_connection_is_closed_when_it_is_replaced_or_not_needed(
    server: Arc<Server>,
) -> Outcome {
    let fixture = Fixture::new(&server).await?;
    let forwarder = Forwarder::to(format!("127.0.0.1:{}", fixture.options().get_port())).await?;
    let through = fixture.options().host("127.0.0.1").port(forwarder.port());
    let waiter = fixture.named().command_timeout(Duration::from_secs(2)).listen_on(through);
    let waiter = waiter.build(fixture.pool.clone())?;
    let key = fixture.key().await?;
    let notification = listening(&waiter, &key).await;
    forwarder.silence_open();
    // The server is asked for an answer after 15 s. The next session wakes the waiters.
    assert_notified(notification).await;
    let _notification = waiter.notified(&key);
    until_open(&forwarder, 1).await;
    // Nobody finds out that this one is silent as well.
    forwarder.silence_open();
    drop(waiter);
    until_open(&forwarder, 0).await;
    Ok(())
}

/// Waits until clients have closed all but so many connections.
pub(super) async fn until_open(forwarder: &Forwarder, expected: usize) {
    let closed = async {
        while forwarder.open() != expected {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let closed = timeout(PATIENCE / 3, closed).await;
    assert!(closed.is_ok(), "{} connections, not {expected}", forwarder.open());
}

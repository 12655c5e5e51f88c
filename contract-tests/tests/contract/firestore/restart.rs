//! An emulator that is restarted.

use std::error::Error;
use std::time::Duration;

use syncguard_firestore::Backend;
use tokio::time::sleep;

use super::{Emulator, LONG, fresh_id, fresh_key, granted, ttl};
use contract_tests::servers::Server;

/// The emulator keeps its data in memory, so a restart loses the lease. An extend reports the loss.
pub(super) async fn e1_a_restart_loses_the_lease_and_reports_it(
    server: &Server,
) -> Result<(), Box<dyn Error>> {
    let own = server.spare(&[]).await?;
    let backend = Emulator::at(&own.url).backend().await;
    let lease = granted(backend.acquire(&fresh_key(), &fresh_id(), ttl(LONG)).await);

    own.container.stop_with_timeout(Some(0)).await?;
    for _ in 0..3 {
        let error = backend.extend(&lease, ttl(LONG)).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }

    own.container.start().await?;
    let extended = loop {
        match backend.extend(&lease, ttl(LONG)).await {
            Ok(extended) => break extended,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(extended, None);
    assert!(!backend.release(&lease).await?);
    let next = granted(backend.acquire(lease.key(), &fresh_id(), ttl(LONG)).await);
    assert!(backend.release(&next).await?);
    Ok(())
}

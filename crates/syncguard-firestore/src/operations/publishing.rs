//! What a leader publishes: read, compared, and written on condition that nothing has changed since.

use syncguard_core::{Error, ErrorCode, Key, Lease, Publication, Result, Ttl};

use super::requests::{Commit, Session};
use super::{ATTEMPTS, pause_before};
use crate::error::failure;
use crate::record::delete;
use crate::record::publication::{has_expired, outranks, put_publication, read};

impl Session<'_> {
    /// Stores a publication, unless one with a higher fence is stored (N6).
    pub(crate) async fn publish(
        self,
        key: &Key,
        publication: &Publication,
        ttl: Ttl,
    ) -> Result<bool> {
        let name = self.names.leader(key);
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let ([stored], _) = self.read([&name]).await?;
            let now = self.clock.now();
            let live = stored.as_ref().filter(|stored| !has_expired(stored, now));
            if live.is_some_and(|live| outranks(live, publication.fence())) {
                return Ok(false);
            }
            let seen = stored.and_then(|stored| stored.update_time);
            let write = put_publication(name.clone(), key, publication, now.after(ttl), seen);
            if let Commit::Applied(_) = self.commit(vec![write], true).await? {
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// Removes what is stored for the key of a lease, unless its fence is above that of the lease.
    pub(crate) async fn withdraw(self, lease: &Lease) -> Result<()> {
        let name = self.names.leader(lease.key());
        for attempt in 0..ATTEMPTS {
            pause_before(attempt).await;
            let ([stored], _) = self.read([&name]).await?;
            let seen = stored.filter(|stored| !outranks(stored, lease.fence()));
            let Some(seen) = seen.and_then(|stored| stored.update_time) else {
                return Ok(());
            };
            let write = delete(name.clone(), seen);
            if let Commit::Applied(_) = self.commit(vec![write], true).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// What is stored for a key, unless it has expired.
    pub(crate) async fn published(self, key: &Key) -> Result<Option<Publication>> {
        let ([stored], _) = self.read([&self.names.leader(key)]).await?;
        let now = self.clock.now();
        stored.filter(|stored| !has_expired(stored, now)).as_ref().map(read).transpose()
    }
}

fn contended() -> Error {
    failure(ErrorCode::ServiceUnavailable)
        .with_message("others changed the publication each time it was read")
}

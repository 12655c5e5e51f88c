//! The defects of publishing.

use syncguard_core::{Backend, Fence, Key, Lease, Publication, Result, Ttl};

use super::{Defect, Defective, with_fence};

impl Defective {
    pub(super) async fn publish_with_defect(
        &self,
        lease: &Lease,
        publication: &Publication,
        ttl: Ttl,
    ) -> Result<bool> {
        match self.defect {
            Defect::PublishIgnoresTheFence => self.remove(lease).await?,
            Defect::PublishReadsThenWrites => {
                let stored = self.inner.published(lease.key()).await?;
                if stored.is_some_and(|stored| stored.fence() > publication.fence()) {
                    return Ok(false);
                }
                tokio::task::yield_now().await;
                self.remove(lease).await?;
            }
            Defect::PublishRenews => drop(self.inner.extend(lease, ttl).await?),
            Defect::PublicationsKeepTheirFirstExpiry
                if self.inner.published(lease.key()).await?.as_ref() == Some(publication) =>
            {
                return Ok(true);
            }
            _ => {}
        }
        self.inner.publish(&self.moved(lease), publication, ttl).await
    }

    pub(super) async fn withdraw_with_defect(&self, lease: &Lease) -> Result<()> {
        match self.defect {
            Defect::WithdrawIgnoresTheFence => self.remove(lease).await,
            Defect::WithdrawRemovesNothing => Ok(()),
            _ => self.inner.withdraw(&self.moved(lease)).await,
        }
    }

    /// The key under which the publication of a key is stored.
    pub(super) fn record_of(&self, key: &Key) -> Key {
        let shares = self.defect == Defect::PublicationsShareARecord;
        let head = key.as_str().chars().take(if shares { 22 } else { Key::MAX_LEN });
        Key::new(&head.collect::<String>()).expect("a part of a key is a key")
    }

    /// The lease with the key under which its publication is stored.
    fn moved(&self, lease: &Lease) -> Lease {
        let key = self.record_of(lease.key());
        Lease::new(key, lease.id().clone(), lease.fence(), lease.expires_at())
    }

    /// Removes what is stored, whatever its fence.
    async fn remove(&self, lease: &Lease) -> Result<()> {
        self.inner.withdraw(&with_fence(lease, Fence::MAX)).await
    }
}

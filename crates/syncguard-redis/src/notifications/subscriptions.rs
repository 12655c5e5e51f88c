//! What a connection is subscribed to.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error as RedisError;
use fred::interfaces::{ClientLike, PubsubInterface};
use fred::types::Value;
use syncguard_backend::NotificationRegistry;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the channels that nobody waits for any more are left, and the connection is proved. A key
/// that is waited for time and again keeps its subscription in between.
const SWEEP: Duration = Duration::from_secs(2);

/// The channels that a connection is subscribed to.
pub(super) struct Subscriptions {
    client: Client,
    sharded: bool,
    names: HashSet<Arc<str>>,
    since: Option<Instant>,
}

impl Subscriptions {
    /// None yet.
    pub(super) fn new(client: Client, sharded: bool) -> Self {
        Self { client, sharded, names: HashSet::new(), since: None }
    }

    /// How long ago something was subscribed to for the first time, if it ever was.
    pub(super) fn worked_for(&self) -> Option<Duration> {
        self.since.map(|first| first.elapsed())
    }

    /// Subscribes to all locks with waiters, wakes these waiters, and then follows the changes.
    ///
    /// It wakes them because releases before the subscription caused no notification.
    pub(super) async fn follow(
        &mut self,
        interests: &NotificationRegistry,
    ) -> Result<Infallible, RedisError> {
        self.add(interests.registered()).await?;
        interests.wake_all();
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = interests.changes() => {
                    if self.names.is_empty() {
                        sweep.reset();
                    }
                    let wanted = changed.into_iter().filter(|name| interests.is_registered(name));
                    for name in self.add(wanted).await? {
                        interests.wake(&name);
                    }
                }
                _ = sweep.tick(), if !self.names.is_empty() => {
                    let unwanted = |name: &Arc<str>| !interests.is_registered(name);
                    let left: Vec<_> = self.names.extract_if(unwanted).collect();
                    self.unsubscribe(&left).await?;
                    self.subscribe(self.names.iter().take(1)).await?;
                }
            }
        }
    }

    /// Subscribes to those of the names that are new, and gives these, when that is in place.
    async fn add(
        &mut self,
        names: impl IntoIterator<Item = Arc<str>>,
    ) -> Result<Vec<Arc<str>>, RedisError> {
        let names = names.into_iter();
        let fresh: Vec<_> = names.filter(|name| self.names.insert(name.clone())).collect();
        self.subscribe(fresh.iter()).await?;
        if !fresh.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
        Ok(fresh)
    }

    /// Resolves when the subscriptions are in place.
    async fn subscribe<'a>(
        &self,
        names: impl ExactSizeIterator<Item = &'a Arc<str>>,
    ) -> Result<(), RedisError> {
        if names.len() == 0 {
            return Ok(());
        }
        if self.sharded {
            // One by one: fred awaits an answer, but there is one for each name.
            for name in names {
                self.client.ssubscribe(&**name).await?;
            }
            return Ok(());
        }
        // Here fred awaits none. That to a ping comes after it, or a refusal comes in its place: fred
        // reads nothing before it has written both.
        let both = self.client.pipeline();
        both.subscribe(names.map(|name| &**name).collect::<Vec<_>>()).await?;
        both.ping::<Value>(None).await?;
        both.last::<Value>().await.map(drop)
    }

    async fn unsubscribe(&self, names: &[Arc<str>]) -> Result<(), RedisError> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        if self.sharded {
            self.client.sunsubscribe(names).await
        } else {
            self.client.unsubscribe(names).await
        }
    }
}

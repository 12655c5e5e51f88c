//! Hints by pub/sub: those who wait are told of a release, over one connection for all locks.
//!
//! A release publishes on the channel that has the name of the lock. The first one who waits starts a
//! task, which connects and subscribes to what is waited for. It goes through sessions: one for each
//! connection, which begins with nothing, subscribes to everything that is wanted, and then wakes
//! everybody, since nobody was told of what happened before. In here, fred neither reconnects nor
//! follows a slot to another node of a cluster, where no channel follows it: both end the session.

use std::collections::HashSet;
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error as RedisError;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{Builder, Message, Value};
use syncguard::{HintTask, Interests};
use syncguard_core::Operation;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::warn;

use crate::connection;
use crate::error::classify;

/// How long after a session the next one begins: doubled each time, from and up to these, until one
/// has lasted for longer than the last pause.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// How often the channels that nobody waits for any more are left, and the connection is proved. A key
/// that is waited for time and again keeps its subscription in between.
const SWEEP: Duration = Duration::from_secs(2);

/// How many messages may come in at once. If it is more, everybody is woken.
const MESSAGES: usize = 256;

/// Who waits for which lock, and the task that hears of releases. It ends when this is dropped.
pub(crate) struct Hints {
    interests: Interests,
    subscriber: Subscriber,
    task: HintTask,
}

impl Hints {
    /// Nothing is connected until somebody waits. The connection will be like that of the client,
    /// and every command of it has this time limit.
    pub(crate) fn new(client: &Client, limit: Duration) -> Self {
        let mut builder = Builder::from_config(client.client_config());
        builder
            .set_connection_config(client.connection_config().clone())
            .with_connection_config(|connection| connection::limit(connection, limit))
            .with_performance_config(|performance| {
                performance.default_command_timeout = limit;
                performance.broadcast_channel_capacity = MESSAGES;
            });
        let subscriber = Subscriber { builder, limit, sharded: client.is_clustered() };
        Self { interests: Interests::new(), subscriber, task: HintTask::new() }
    }

    /// The command that a release tells by. In a cluster the channels have slots, as keys do: else
    /// every node would be told of every release.
    pub(crate) fn verb(&self) -> &'static str {
        if self.subscriber.sharded { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Resolves when the lock of this name may have become free since the call.
    pub(crate) fn freed(&self, lock: &str) -> impl Future<Output = ()> + Send + use<> {
        let freed = self.interests.register(lock);
        self.task.ensure_running(|| self.subscriber.clone().run(self.interests.clone()));
        freed
    }
}

#[derive(Clone)]
struct Subscriber {
    builder: Builder,
    limit: Duration,
    sharded: bool,
}

impl Subscriber {
    /// One session after the other.
    async fn run(self, interests: Interests) {
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        // To connect may take two of the limits, and to subscribe one.
        let lasting = LAST_PAUSE + self.limit * 3;
        loop {
            interests.somebody().await;
            let begun = Instant::now();
            let ended = self.session(&interests).await;
            if begun.elapsed() > lasting {
                (pause, told) = (FIRST_PAUSE, false);
            }
            if let Err(error) = ended
                && !mem::replace(&mut told, true)
            {
                let error = classify(error, Operation::Wait);
                warn!(
                    code = error.code().as_str(),
                    reason = error.message(),
                    "no hints of releases, so waiting goes on by timer"
                );
            }
            interests.pause(pause).await;
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    /// One connection, until it ends. It is an error when there was none, or it was of no use.
    async fn session(&self, interests: &Interests) -> Result<(), RedisError> {
        let client = self.builder.build()?;
        let messages = client.message_rx();
        let mut connection = connection::open(&client, self.limit).await?;

        let wanted = interests.wanted();
        self.subscribe(&client, wanted.iter()).await?;
        interests.wake_all();
        tokio::select! {
            () = connection.ended() => Ok(()),
            () = hear(messages, interests) => Ok(()),
            ended = self.follow(&client, interests, wanted.into_iter().collect()) => match ended? {},
        }
    }

    /// Subscribes to what is waited for and unsubscribes from what is not.
    async fn follow(
        &self,
        client: &Client,
        interests: &Interests,
        mut subscribed: HashSet<Arc<str>>,
    ) -> Result<Infallible, RedisError> {
        let mut sweep = interval_at(Instant::now() + SWEEP, SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                names = interests.changes() => {
                    if subscribed.is_empty() {
                        sweep.reset();
                    }
                    let mut fresh = names;
                    fresh.retain(|name| {
                        interests.is_wanted(name) && subscribed.insert(name.clone())
                    });
                    self.subscribe(client, fresh.iter()).await?;
                    for name in fresh {
                        interests.wake(&name);
                    }
                }
                _ = sweep.tick(), if !subscribed.is_empty() => {
                    let unwanted = |name: &Arc<str>| !interests.is_wanted(name);
                    let left: Vec<_> = subscribed.extract_if(unwanted).collect();
                    self.unsubscribe(client, &left).await?;
                    self.subscribe(client, subscribed.iter().take(1)).await?;
                }
            }
        }
    }

    /// Resolves when the subscriptions are in place.
    async fn subscribe<'a>(
        &self,
        client: &Client,
        names: impl ExactSizeIterator<Item = &'a Arc<str>>,
    ) -> Result<(), RedisError> {
        if names.len() == 0 {
            return Ok(());
        }
        if self.sharded {
            // One by one: fred awaits an answer, but there is one for each name.
            for name in names {
                client.ssubscribe(&**name).await?;
            }
            return Ok(());
        }
        // Here fred awaits none. That to a ping comes after it, or a refusal comes in its place: fred
        // reads nothing before it has written both.
        let both = client.pipeline();
        both.subscribe(names.map(|name| &**name).collect::<Vec<_>>()).await?;
        both.ping::<Value>(None).await?;
        both.last::<Value>().await.map(drop)
    }

    async fn unsubscribe(&self, client: &Client, names: &[Arc<str>]) -> Result<(), RedisError> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        if self.sharded {
            client.sunsubscribe(names).await
        } else {
            client.unsubscribe(names).await
        }
    }
}

/// Wakes those who wait for what a message tells of.
async fn hear(mut messages: Receiver<Message>, interests: &Interests) {
    loop {
        match messages.recv().await {
            Ok(message) => interests.wake(&message.channel),
            Err(RecvError::Lagged(_)) => interests.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use fred::types::MessageKind;
    use fred::types::config::Server;
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn w9_whoever_misses_messages_wakes_everybody() {
        let interests = Interests::new();
        let hints = [interests.register("one"), interests.register("two")];
        let (published, messages) = broadcast::channel(1);
        for _ in 0..2 {
            let told = Message {
                channel: "three".into(),
                value: Value::Null,
                kind: MessageKind::Message,
                server: Server::new("127.0.0.1", 6379),
            };
            assert!(published.send(told).is_ok());
        }
        drop(published);
        hear(messages, &interests).await;
        for hint in hints {
            assert!(pin!(hint).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
    }
}

//! Notifications by pub/sub: a release wakes waiters, over one connection for all locks.
//!
//! A release publishes on the channel that has the name of the lock. The first waiter starts a
//! task, which connects and subscribes to the locks that have waiters. The task runs one session
//! per connection. A session subscribes to all these locks and then wakes all waiters, because
//! releases before the subscription caused no notification. fred neither reconnects here nor
//! follows a slot to another node of a cluster, because subscriptions would not follow. Both end
//! the session.

mod subscriptions;

use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error as RedisError, ErrorKind};
use fred::interfaces::EventInterface;
use fred::types::Message;
use syncguard_backend::{ListenerTask, NotificationRegistry, Notified, ReconnectBackoff};
use syncguard_core::Operation;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use tracing::warn;

use self::subscriptions::Subscriptions;
use crate::connect::{Connector, Task};
use crate::error::{ENDED, classify};

/// How many messages may arrive at once. If more arrive, all waiters are woken.
const MESSAGES: usize = 256;

/// The registered waiters, and the task that receives notifications. The task ends when this is
/// dropped.
pub(crate) struct Notifications {
    interests: NotificationRegistry,
    subscriber: Subscriber,
    task: ListenerTask,
}

impl Notifications {
    /// Connects only when a waiter registers.
    pub(crate) fn new(connector: Connector) -> Self {
        let subscriber = Subscriber { connector: connector.with_messages(MESSAGES) };
        Self { interests: NotificationRegistry::new(), subscriber, task: ListenerTask::new() }
    }

    /// The command by which a release publishes. A cluster uses sharded channels, because every
    /// node receives the messages of plain channels.
    pub(crate) fn verb(&self) -> &'static str {
        if self.subscriber.connector.is_clustered() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Resolves when the lock of this name may have become free since the call.
    pub(crate) fn freed(&self, lock: &str) -> Notified {
        let freed = self.interests.register(lock);
        self.task.ensure_running(|| self.subscriber.clone().run(self.interests.clone()));
        freed
    }
}

#[derive(Clone)]
struct Subscriber {
    connector: Connector,
}

impl Subscriber {
    /// One session after the other.
    async fn run(self, interests: NotificationRegistry) {
        let mut outage = ReconnectBackoff::new();
        loop {
            interests.wait_until_registered().await;
            let (worked_for, error) = self.session(&interests).await;
            if outage.session_ended(worked_for) {
                let error = classify(error, Operation::Wait);
                warn!(
                    code = error.code().as_str(),
                    reason = error.message(),
                    "no notifications of releases, so waiting goes on by timer"
                );
            }
            interests.pause(outage.pause()).await;
        }
    }

    /// One connection, until it ends: for how long it had worked, if it ever did, and why it ended.
    async fn session(&self, interests: &NotificationRegistry) -> (Option<Duration>, RedisError) {
        let (client, messages, mut connection) = match self.connect().await {
            Ok(connected) => connected,
            Err(error) => return (None, error),
        };
        let connected = Instant::now();
        let mut subscriptions = Subscriptions::new(client, self.connector.is_clustered());
        tokio::select! {
            () = connection.ended() => {}
            () = hear(messages, interests) => {}
            ended = subscriptions.follow(interests) => {
                let Err(error) = ended;
                // It may have taken the time limit to find out.
                let worked_for = subscriptions.worked_for();
                return (worked_for.map(|lasted| lasted.saturating_sub(self.connector.limit())), error);
            }
        }
        (Some(connected.elapsed()), RedisError::new(ErrorKind::IO, ENDED))
    }

    async fn connect(&self) -> Result<(Client, Receiver<Message>, Task), RedisError> {
        let client = self.connector.client()?;
        let messages = client.message_rx();
        let connection = self.connector.open(&client).await?;
        Ok((client, messages, connection))
    }
}

/// Wakes the waiters for the lock that a message names.
async fn hear(mut messages: Receiver<Message>, interests: &NotificationRegistry) {
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

    use fred::types::config::Server;
    use fred::types::{MessageKind, Value};
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn w9_whoever_misses_messages_wakes_everybody() {
        let interests = NotificationRegistry::new();
        let notifications = [interests.register("one"), interests.register("two")];
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
        for notification in notifications {
            assert!(pin!(notification).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        }
    }
}

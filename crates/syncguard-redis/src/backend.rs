//! How Redis meets the trait: one script for each operation.

mod answers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::bytes_utils::Str;
use fred::types::Value;
use syncguard_backend::Notified;
use syncguard_core::{
    Acquired, Backend, Capabilities, Clock, Finding, Key, Lease, Level, LockId, LockRecord,
    Operation, Publication, Result, Sent, Ttl,
};

use self::answers::{extended, granted, live, released};
use crate::connection::{Connections, InFlight};
use crate::groups::{Call, Groups};
use crate::names::Names;
use crate::notifications::Notifications;
use crate::operations::{self, Script};
use crate::preflight::{self, Expectations};
use crate::{publication, record};

/// Locks on a Redis server, cluster or compatible store. Clones share the connection.
#[derive(Clone)]
pub struct RedisBackend {
    connections: Connections,
    groups: Groups,
    names: Names,
    notifications: Option<Arc<Notifications>>,
}

impl RedisBackend {
    pub(crate) fn from_parts(
        connections: Connections,
        groups: Groups,
        names: Names,
        notifications: Option<Notifications>,
    ) -> Self {
        Self { connections, groups, names, notifications: notifications.map(Arc::new) }
    }

    /// How a release is told to those who wait, for the script.
    fn verb(&self) -> String {
        self.notifications
            .as_ref()
            .map_or_else(String::new, |notifications| notifications.verb().to_owned())
    }

    /// What a script declares that knows an id alone: the name of the index, and the prefix alone,
    /// under which nothing is ever stored. In a cluster, a script of several keys, one of which is
    /// missing, is refused while their slot moves, and that is what these need: the lock that the
    /// index names may be on another node, and would seem not to be there.
    fn keys_by_id(&self, id: &LockId) -> [String; 2] {
        [self.names.index(id), self.names.prefix().to_owned()]
    }

    /// Connects, so that an error of the configuration is reported now.
    pub(crate) async fn connect_now(&self) -> Result<()> {
        let connection = self.connections.next();
        match connection.established().await {
            Ok(_) => Ok(()),
            Err(cause) => Err(connection.connector().error(cause, Operation::Connect)),
        }
    }

    /// Runs the script of a lock operation, alone or in one call with others.
    ///
    /// Until there is a connection, nothing is sent and `sent` is not marked.
    fn call<const K: usize, const A: usize>(
        &self,
        operation: Operation,
        script: &'static Script,
        keys: [String; K],
        args: [String; A],
        sent: &Sent,
    ) -> impl Future<Output = Result<Value>> {
        let (keys, args) = (keys.map(Str::from).into(), args.map(Value::from).into());
        self.groups.run(Call { operation, script, keys, args }, sent)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend").field("prefix", &self.names.prefix()).finish_non_exhaustive()
    }
}

impl Backend for RedisBackend {
    fn capabilities(&self) -> Capabilities {
        let capabilities =
            Capabilities::new(Clock::Server).with_end_at_ttl().with_handoff().with_publishing();
        if self.notifications.is_some() { capabilities.with_notifications() } else { capabilities }
    }

    async fn acquire(&self, key: &Key, id: &LockId, ttl: Ttl) -> Result<Acquired> {
        self.acquire_marking(key, id, ttl, &Sent::default()).await
    }

    async fn acquire_marking(
        &self,
        key: &Key,
        id: &LockId,
        ttl: Ttl,
        sent: &Sent,
    ) -> Result<Acquired> {
        let operation = Operation::Acquire;
        let lock = self.names.lock(key, operation)?;
        let counter = self.names.counter(&lock);
        let keys = [lock, self.names.index(id), counter];
        let args = [record::head(key, id), ttl.as_millis().to_string()];
        let answer = self.call(operation, &operations::ACQUIRE, keys, args, sent).await;
        match answer.map_err(|error| error.with_key(key))? {
            Value::Integer(left) => Ok(Acquired::Held {
                remaining: u64::try_from(left).ok().map(Duration::from_millis),
            }),
            answer => granted(&answer, key, id, operation).map(Acquired::Granted),
        }
    }

    async fn extend(&self, lease: &Lease, ttl: Ttl) -> Result<Option<Lease>> {
        let (key, id, operation) = (lease.key(), lease.id(), Operation::Extend);
        let keys = [self.names.lock(key, operation)?, self.names.index(id)];
        let args = [record::head(key, id), ttl.as_millis().to_string()];
        let answer = self.call(operation, &operations::EXTEND, keys, args, &Sent::default()).await;
        extended(answer).map_err(|error| error.with_key(key))
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let (key, id, operation) = (lease.key(), lease.id(), Operation::Release);
        let keys = [self.names.lock(key, operation)?, self.names.index(id)];
        let args = [record::head(key, id), self.verb()];
        let answer = self.call(operation, &operations::RELEASE, keys, args, &Sent::default()).await;
        released(answer).map_err(|error| error.with_key(key))
    }

    async fn extend_by_id(&self, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let args = [id.as_str().to_owned(), ttl.as_millis().to_string()];
        let answer = self
            .call(
                Operation::Extend,
                &operations::EXTEND_BY_ID,
                self.keys_by_id(id),
                args,
                &Sent::default(),
            )
            .await;
        extended(answer).map_err(|error| error.with_id(id))
    }

    async fn release_by_id(&self, id: &LockId) -> Result<bool> {
        let (operation, args) = (Operation::Release, [id.as_str().to_owned(), self.verb()]);
        let answer = self
            .call(
                operation,
                &operations::RELEASE_BY_ID,
                self.keys_by_id(id),
                args,
                &Sent::default(),
            )
            .await;
        released(answer).map_err(|error| error.with_id(id))
    }

    async fn get(&self, key: &Key) -> Result<Option<LockRecord>> {
        let operation = Operation::Get;
        let keys = [self.names.lock(key, operation)?];
        let answer = self.call(operation, &operations::GET, keys, [], &Sent::default()).await;
        answer.and_then(|answer| live(&answer, operation)).map_err(|error| error.with_key(key))
    }

    async fn find(&self, id: &LockId) -> Result<Option<LockRecord>> {
        let operation = Operation::Find;
        let answer = self
            .call(operation, &operations::FIND, self.keys_by_id(id), [], &Sent::default())
            .await;
        answer
            .and_then(|answer| live(&answer, operation))
            .map(|record| record.filter(|record| record.id() == id))
            .map_err(|error| error.with_id(id))
    }

    async fn handoff(&self, lease: &Lease, id: &LockId, ttl: Ttl) -> Result<Option<Lease>> {
        let (key, operation) = (lease.key(), Operation::Handoff);
        let lock = self.names.lock(key, operation)?;
        let (counter, next) = (self.names.counter(&lock), self.names.index(id));
        let keys = [lock, self.names.index(lease.id()), counter, next];
        let ttl = ttl.as_millis().to_string();
        let args = [record::head(key, lease.id()), ttl, record::head(key, id)];
        let answer =
            self.call(operation, &operations::HAND_OVER, keys, args, &Sent::default()).await;
        match answer.map_err(|error| error.with_key(key))? {
            Value::Null => Ok(None),
            answer => granted(&answer, key, id, operation).map(Some),
        }
    }

    async fn publish(&self, lease: &Lease, publication: &Publication, ttl: Ttl) -> Result<bool> {
        let name = self.names.publication(lease.key(), Operation::Publish)?;
        let answer =
            self.groups.run(publication::publish(name, publication, ttl), &Sent::default()).await;
        answer.map(|answer| !answer.is_null()).map_err(|error| error.with_key(lease.key()))
    }

    async fn withdraw(&self, lease: &Lease) -> Result<()> {
        let name = self.names.publication(lease.key(), Operation::Withdraw)?;
        let answer =
            self.groups.run(publication::withdraw(name, lease.fence()), &Sent::default()).await;
        answer.map(drop).map_err(|error| error.with_key(lease.key()))
    }

    async fn published(&self, key: &Key) -> Result<Option<Publication>> {
        let name = self.names.publication(key, Operation::Published)?;
        let answer = self.groups.run(publication::published(name), &Sent::default()).await;
        answer.and_then(|answer| publication::parse(&answer)).map_err(|error| error.with_key(key))
    }

    async fn preflight(&self) -> Vec<Finding> {
        let connection = self.connections.next();
        let limit = connection.connector().limit();
        let asked = async {
            let established = match connection.established().await {
                Ok(established) => established,
                Err(cause) => {
                    let error = connection.connector().error(cause, Operation::Preflight);
                    let fact = error.message().unwrap_or("no connection").to_owned();
                    return vec![Finding::new(Level::Error, "connection", fact, "")];
                }
            };
            let in_flight = InFlight::new(connection, &established);
            let expected = Expectations {
                prefix: self.names.prefix(),
                clustered: connection.connector().is_clustered(),
                notifications: self.notifications.is_some(),
            };
            let findings =
                preflight::findings(established.client(), self.groups.options(), &expected).await;
            in_flight.heard();
            findings
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let advice = "run the preflight again when the server answers faster";
            vec![Finding::new(Level::Unknown, "connection", "no answer in time", advice)]
        })
    }

    fn notified(&self, key: &Key) -> impl Future<Output = ()> + Send + 'static {
        // A key that no lock can have never becomes free.
        let lock = self.names.lock(key, Operation::Wait).ok();
        let notifications = self.notifications.as_ref().zip(lock);
        notifications
            .map_or_else(Notified::never, |(notifications, lock)| notifications.freed(&lock))
    }
}

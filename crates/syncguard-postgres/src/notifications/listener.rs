//! The task that listens while somebody waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use syncguard_backend::{NotificationRegistry, ReconnectBackoff};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::channel::{Bucket, bucket_of};
use super::route::{NONE_ARRIVE, Route};
use super::session::{Failure, Session};

/// Owns the listening connection, and wakes those who wait.
pub(super) struct Listener {
    interests: NotificationRegistry,
    route: Arc<Route>,
    backoff: ReconnectBackoff,
}

impl Listener {
    pub(super) fn new(interests: NotificationRegistry, route: Arc<Route>) -> Self {
        Self { interests, route, backoff: ReconnectBackoff::new() }
    }

    /// Runs until it is aborted, or the pool is closed.
    pub(super) async fn run(mut self) {
        let pool = self.route.connections.pool().clone();
        tokio::select! {
            () = pool.close_event() => {}
            () = self.listen() => {}
        }
    }

    async fn listen(&mut self) {
        loop {
            self.interests.wait_until_registered().await;
            let pause = match Session::open(&self.route).await {
                Ok(session) => self.serve(session).await,
                Err(Failure::NoneArrive) => self.none_arrive(),
                Err(Failure::Error(error)) => self.failed(None, &error),
            };
            self.interests.pause(pause).await;
        }
    }

    /// Serves the waiters until the session fails or is not needed. Returns the pause before the next
    /// session.
    async fn serve(&mut self, mut session: Session) -> Duration {
        match self.follow(&mut session).await {
            Ok(()) => {
                session.close().await;
                self.backoff = ReconnectBackoff::new();
                Duration::ZERO
            }
            Err(error) => {
                let worked_for = session.worked_for();
                // Closed before the next one is opened.
                drop(session);
                self.failed(Some(worked_for), &error)
            }
        }
    }

    /// Keeps the waiter locks of the keys that are waited for. Returns when nobody has waited for a while.
    async fn follow(&self, session: &mut Session) -> sqlx::Result<()> {
        let mut missing: BTreeSet<_> = self.wanted();
        let (mut due, mut pause) = (Instant::now(), FIRST_RETRY);
        let mut last_wanted = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                name = session.next() => self.interests.wake(&name?),
                changed = self.interests.changes() => {
                    // A bucket that is locked was locked before the name was registered.
                    let wanted = changed.iter().filter(|name| self.interests.is_registered(name));
                    let buckets = wanted.map(|name| bucket_of(name));
                    let before = missing.len();
                    missing.extend(buckets.filter(|bucket| !session.waiter_locks().contains(bucket)));
                    if missing.len() > before {
                        (due, pause) = (Instant::now(), FIRST_RETRY);
                    }
                }
                () = sleep_until(due), if !missing.is_empty() => {
                    let taken = session.take(&missing).await?;
                    self.wake(&taken);
                    missing.retain(|bucket| !taken.contains(bucket));
                    due = Instant::now() + pause;
                    pause = LONGEST_RETRY.min(pause * 2);
                }
                _ = looks.tick() => {
                    let wanted = self.wanted();
                    missing.retain(|bucket| wanted.contains(bucket));
                    let unwanted: BTreeSet<_> = session.waiter_locks() - &wanted;
                    if !unwanted.is_empty() {
                        session.give_back(&unwanted).await?;
                    }
                    session.check(SILENCE).await?;
                    if !wanted.is_empty() {
                        last_wanted = Instant::now();
                    } else if last_wanted.elapsed() >= IDLE {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn wanted(&self) -> BTreeSet<Bucket> {
        self.interests.registered().iter().map(|name| bucket_of(name)).collect()
    }

    /// Wakes the waiters whose buckets have just been locked. Earlier releases sent them nothing.
    fn wake(&self, taken: &BTreeSet<Bucket>) {
        for name in self.interests.registered() {
            if taken.contains(&bucket_of(&name)) {
                self.interests.wake(&name);
            }
        }
    }

    fn none_arrive(&self) -> Duration {
        if self.route.set_blocked_for(BLOCKED_FOR) {
            tracing::warn!("{NONE_ARRIVE}");
        }
        BLOCKED_FOR
    }

    fn failed(&mut self, worked_for: Option<Duration>, error: &sqlx::Error) -> Duration {
        if self.backoff.session_ended(worked_for) {
            let sqlstate = error.as_database_error().and_then(|error| error.code());
            tracing::warn!(
                sqlstate = sqlstate.as_deref(),
                "no notifications of releases, because no listening connection can be made, or lasts; \
                 waiting goes on by timer until one does"
            );
        }
        self.backoff.pause()
    }
}

/// The pause before a waiter lock is tried again that a release holds: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_millis(500);

/// How often waiter locks that nobody needs are given back. Until then, the next waiter for the key
/// finds the lock in place.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the server may be silent before it is asked for an answer.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the connection is kept when nobody waits.
const IDLE: Duration = Duration::from_secs(60);

/// The pause before the next test, after one showed that no notification arrives.
const BLOCKED_FOR: Duration = Duration::from_secs(10 * 60);

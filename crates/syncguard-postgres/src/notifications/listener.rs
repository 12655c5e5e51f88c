//! The task that listens while somebody waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use syncguard_backend::{NotificationRegistry, ReconnectBackoff};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::channel::{Bucket, bucket_of};
use super::route::{NOT_HEARD, Route};
use super::session::{Failure, Session};

/// Owns the listening connection, and wakes those who wait.
pub(super) struct Listener {
    interests: NotificationRegistry,
    route: Arc<Route>,
    outage: ReconnectBackoff,
}

impl Listener {
    pub(super) fn new(interests: NotificationRegistry, route: Arc<Route>) -> Self {
        Self { interests, route, outage: ReconnectBackoff::new() }
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
                Err(Failure::Deaf) => self.deaf(),
                Err(Failure::Error(error)) => self.failed(None, &error),
            };
            self.interests.pause(pause).await;
        }
    }

    /// Serves those who wait, as long as the session lives and is of use. Gives the pause until the
    /// next one.
    async fn serve(&mut self, mut session: Session) -> Duration {
        match self.keep_signs(&mut session).await {
            Ok(()) => {
                session.close().await;
                self.outage = ReconnectBackoff::new();
                Duration::ZERO
            }
            Err(error) => {
                let worked_for = session.worked_for();
                // An answer may still be in flight, so nothing more can be asked.
                drop(session);
                self.failed(Some(worked_for), &error)
            }
        }
    }

    /// Ends when nobody has waited for a while.
    async fn keep_signs(&self, session: &mut Session) -> sqlx::Result<()> {
        let mut missing: BTreeSet<_> = self.wanted();
        let (mut due, mut pause) = (Instant::now(), FIRST_RETRY);
        let mut last_wanted = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                name = session.next() => self.interests.wake(&name?),
                changed = self.interests.changes() => {
                    // Where the sign is up, it has been since before the name was registered.
                    let wanted = changed.iter().filter(|name| self.interests.is_registered(name));
                    let buckets = wanted.map(|name| bucket_of(name));
                    let before = missing.len();
                    missing.extend(buckets.filter(|bucket| !session.signs().contains(bucket)));
                    if missing.len() > before {
                        (due, pause) = (Instant::now(), FIRST_RETRY);
                    }
                }
                () = sleep_until(due), if !missing.is_empty() => {
                    let put_up = session.put_up(&missing).await?;
                    self.wake(&put_up);
                    missing.retain(|bucket| !put_up.contains(bucket));
                    due = Instant::now() + pause;
                    pause = LONGEST_RETRY.min(pause * 2);
                }
                _ = looks.tick() => {
                    let wanted = self.wanted();
                    missing.retain(|bucket| wanted.contains(bucket));
                    let unwanted: BTreeSet<_> = session.signs() - &wanted;
                    if !unwanted.is_empty() {
                        session.take_down(&unwanted).await?;
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

    /// Wakes all whose signs have just been put up: what happened before, nobody was told.
    fn wake(&self, put_up: &BTreeSet<Bucket>) {
        for name in self.interests.registered() {
            if put_up.contains(&bucket_of(&name)) {
                self.interests.wake(&name);
            }
        }
    }

    fn deaf(&self) -> Duration {
        if self.route.set_deaf_for(DEAF_FOR) {
            tracing::warn!("{NOT_HEARD}");
        }
        DEAF_FOR
    }

    fn failed(&mut self, worked_for: Option<Duration>, error: &sqlx::Error) -> Duration {
        if self.outage.session_ended(worked_for) {
            let sqlstate = error.as_database_error().and_then(|error| error.code());
            tracing::warn!(
                sqlstate = sqlstate.as_deref(),
                "releases are not heard, since no connection that listens can be made, or lasts; \
                 waiting goes on by timer until one does"
            );
        }
        self.outage.pause()
    }
}

/// For how long a sign is tried again that was kept out: first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_millis(500);

/// How often signs that are not needed any more are looked for. Until then the next one who waits
/// for the key finds the sign in place.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After how long without a word from the server it is asked for one.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the connection is kept when nobody waits.
const IDLE: Duration = Duration::from_secs(60);

/// How long it is of no use to listen where nothing was heard.
const DEAF_FOR: Duration = Duration::from_secs(10 * 60);

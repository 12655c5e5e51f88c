//! The connection that listens, which is closed when it is dropped.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::tls;

/// The driver's listener on a connection of its own. Dropping it closes the connection at once.
///
/// When the driver's listener is dropped, it first asks the server to send no more notifications, in a
/// task that nobody can end. On a silent connection that task waits for ever, and the socket stays open.
pub(super) struct ListeningConnection(Option<PgListener>);

impl ListeningConnection {
    /// Connects. There is no time limit for the server's answer here, but one for the connection.
    pub(super) async fn open(options: PgConnectOptions, limit: Duration) -> sqlx::Result<Self> {
        tls::choose_provider(&options);
        // Of this connection only: the driver's listener asks for a pool.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(limit)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // When the listener gives it back, it is to be closed.
            .after_release(|_, _| Box::pin(async { Ok(false) }))
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        // The waiter locks end with the connection, so a lost connection means a new session.
        listener.eager_reconnect(false);
        Ok(Self(Some(listener)))
    }

    pub(super) fn listener(&mut self) -> &mut PgListener {
        #[expect(clippy::expect_used, reason = "only methods that consume `self` take it out")]
        self.0.as_mut().expect("the connection is open")
    }

    /// Ends the session, so that the server does not see a connection that breaks.
    pub(super) async fn close(mut self, limit: Duration) {
        let answered = timeout(limit, self.listener().unlisten_all()).await;
        if matches!(answered, Ok(Ok(()))) {
            // The driver's own way, because the server answers.
            drop(self.0.take());
        }
    }
}

impl Drop for ListeningConnection {
    fn drop(&mut self) {
        let Some(listener) = self.0.take() else { return };
        // The task of the driver belongs to this runtime, which never runs it, and ends now.
        if let Ok(runtime) = Builder::new_current_thread().build() {
            let inside = runtime.enter();
            drop(listener);
            drop(inside);
            runtime.shutdown_background();
        }
    }
}

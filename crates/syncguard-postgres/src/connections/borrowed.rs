//! A connection that is lent to one operation.

use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use syncguard_backend::spawn_stealable;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::shared::Shared;
use super::state::{Open, SAME_PLANS};

/// A connection for one operation. If it is neither [given back](Self::give_back) nor
/// [condemned](Self::condemn), the operation was dropped, and its answer may still come.
#[derive(Debug)]
pub(crate) struct Borrowed {
    open: Option<Open>,
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Borrowed {
    pub(super) const fn new(open: Open, permit: OwnedSemaphorePermit, shared: Arc<Shared>) -> Self {
        Self { open: Some(open), permit: Some(permit), shared }
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        #[expect(clippy::expect_used, reason = "only methods that consume `self` take it out")]
        let open = self.open.as_mut().expect("it is lent");
        &mut open.connection
    }

    /// Drops the server's plans of prepared statements, once in [`SAME_PLANS`] calls. Call it before each
    /// of these statements.
    pub(crate) async fn renew_plans(&mut self) -> sqlx::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.same_plans = open.same_plans.saturating_sub(1);
        if open.same_plans > 0 {
            return Ok(());
        }
        open.same_plans = SAME_PLANS;
        match open.connection.execute(sqlx::raw_sql("DISCARD PLANS")).await {
            // The session still works if the server refuses the command. Otherwise the statement fails next.
            Ok(_) | Err(sqlx::Error::Database(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Leaves the connection to others: its answer has arrived, and says nothing against it.
    pub(crate) fn give_back(mut self) {
        if let Some(open) = self.open.take() {
            self.shared.give_back(open);
        }
    }

    /// Closes the connection, and the idle ones, which may have failed for the same reason.
    ///
    /// With `all`, the connections that are in use now are closed as well when they are given back:
    /// the server answers, but not as the one that we want.
    pub(crate) fn condemn(mut self, all: bool) {
        let open = self.open.take();
        let mut state = self.shared.state();
        // A connection of an earlier generation says nothing about the present ones.
        if open.as_ref().is_some_and(|open| open.generation != state.generation) {
            return;
        }
        if all {
            state.replace_all();
        } else {
            state.clear();
        }
    }
}

impl Drop for Borrowed {
    /// The answer to a statement whose caller has gone is waited for, within the time limit, so that
    /// callers who give up do not leave sessions behind that are still at work.
    fn drop(&mut self) {
        let (Some(mut open), permit) = (self.open.take(), self.permit.take()) else { return };
        let shared = self.shared.clone();
        let settle = async move {
            let answered = timeout(shared.limit, open.connection.ping()).await;
            if matches!(answered, Ok(Ok(()))) {
                shared.give_back(open);
            } else {
                shared.state().clear();
            }
            drop(permit);
        };
        // Outside a runtime, the connection is closed.
        if let Ok(runtime) = Handle::try_current() {
            drop(spawn_stealable(&runtime, settle));
        }
    }
}

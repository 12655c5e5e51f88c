//! How a connection is made, from a URL or from the options of a pool.

mod refusal;
mod url;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{ConnectOptions, Connection};

pub(crate) use self::refusal::Refusal;
pub(crate) use self::url::parse;
use crate::tls;

/// The options that the pool has now. They may change, with a password for example.
pub(crate) fn options_of(pool: &PgPool) -> PgConnectOptions {
    adapt(&pool.connect_options())
}

/// The options for a connection of this backend, whoever made them.
pub(crate) fn adapt(options: &PgConnectOptions) -> PgConnectOptions {
    let options = options.clone();
    // The driver would look up the name `[::1]`.
    let host = options.get_host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    let options = match bare {
        Some(address) => options.host(&address),
        None => options,
    };
    // The driver's log of slow statements quotes them, and some contain keys and lock ids.
    options.disable_statement_logging()
}

/// Opens a connection. There is no time limit here.
pub(crate) async fn open(options: &PgConnectOptions) -> Result<PgConnection, Refusal> {
    tls::choose_provider(options);
    let connected = in_few_turns(PgConnection::connect_with(options)).await;
    connected.map_err(|error| Refusal::new(options, error))
}

/// Polls a future several times before other tasks get their turn.
///
/// The driver computes the answer to a password challenge in 800 small steps, and yields after each.
/// In a busy runtime each yield takes as long as all other tasks that are ready, and a connection then
/// takes seconds: measured after a failover, when every connection is new.
async fn in_few_turns<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        for _ in 0..POLLS {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

/// So many steps take about a millisecond.
const POLLS: usize = 256;

//! The error of a wait that gave up: contention only if an attempt was answered so.

use std::fmt::Write as _;
use std::time::Duration;

use syncguard_core::{Error, ErrorCode, Key, Operation};
use tokio::time::Instant;

use crate::limits::{Limits, Stop};
use crate::queue::Answer;

/// What a waiter knows of the key when it gives up.
pub(crate) struct Known {
    /// What the last attempt of its queue learned while it waited.
    pub(crate) answer: Option<Answer>,
    pub(crate) held_until: Option<Instant>,
    /// A guard of this manager holds the key.
    pub(crate) held_here: bool,
}

/// If a lease seems to last longer than this, the backend did not say how long it lasts.
const UNKNOWN: Duration = Duration::from_secs(1 << 31);

/// The limit that ended a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Time,
    Retries,
}

/// The error for a waiter that gave up. No answer is not "no": a caller that skips its work on
/// contention must not skip it while the server is down.
pub(crate) fn give_up(
    limit: Limit,
    key: &Key,
    limits: &Limits,
    known: Known,
    attempts: u32,
) -> Error {
    match known.answer {
        Some(Answer::Failed(error)) if !known.held_here => error,
        None if !known.held_here => Stop::TimeUp.without_answer(Operation::Acquire, key),
        _ => {
            let (now, waited) = (Instant::now(), limits.deadline - limits.started);
            let message = match limit {
                Limit::Time => format!("the key is held: waited {waited:?}, the wait limit"),
                Limit::Retries => {
                    let waited = rounded(limits.started.elapsed());
                    format!(
                        "the key is held: waited {waited:?}, all retries are used up after \
                         {attempts} attempts"
                    )
                }
            };
            Error::new(ErrorCode::AcquisitionTimeout, Operation::Acquire)
                .with_key(key)
                .with_message(message + &about_the_lease(&known, now))
        }
    }
}

fn about_the_lease(known: &Known, now: Instant) -> String {
    let mut text = String::new();
    let left = known.held_until.map(|until| until - now);
    if let Some(left) = left.filter(|left| *left < UNKNOWN) {
        // Writing to a String cannot fail.
        let _ = write!(text, "; the lease ends in {:?} unless it is extended", rounded(left));
    }
    if known.held_here {
        text += "; this process itself holds the key: locks are not re-entrant";
    }
    text
}

/// Whole milliseconds are enough for a reader.
fn rounded(duration: Duration) -> Duration {
    duration - Duration::from_nanos(u64::from(duration.subsec_nanos() % 1_000_000))
}

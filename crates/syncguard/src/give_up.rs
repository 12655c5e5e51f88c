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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        let started = Instant::now();
        Limits { started, deadline: started + 5 * SECOND, cancel: None }
    }

    fn failed(code: ErrorCode) -> Option<Answer> {
        Some(Answer::Failed(Error::new(code, Operation::Acquire)))
    }

    fn gave_up(limit: Limit, known: Known, limits: &Limits) -> Error {
        give_up(limit, &Key::new("key").unwrap(), limits, known, 4)
    }

    #[tokio::test(start_paused = true)]
    async fn w2_the_code_is_contention_only_if_the_key_was_seen_to_be_held() {
        let table = [
            // What the last attempt learned; whether this process holds the key; the code.
            (None, false, ErrorCode::NetworkTimeout),
            (None, true, ErrorCode::AcquisitionTimeout),
            (Some(Answer::Held), false, ErrorCode::AcquisitionTimeout),
            (Some(Answer::Held), true, ErrorCode::AcquisitionTimeout),
            (failed(ErrorCode::RateLimited), false, ErrorCode::RateLimited),
            (failed(ErrorCode::RateLimited), true, ErrorCode::AcquisitionTimeout),
        ];
        for (answer, held_here, code) in table {
            for limit in [Limit::Time, Limit::Retries] {
                let known = Known { answer: answer.clone(), held_until: None, held_here };
                let error = gave_up(limit, known, &limits());
                assert_eq!(error.code(), code, "{answer:?}, {held_here}, {limit:?}");
                assert_eq!(error.operation(), Operation::Acquire);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn w2_what_the_message_says() {
        let limits = limits();
        tokio::time::advance(3 * SECOND + Duration::from_micros(1_234_567)).await;
        let lasts = |left| Some(Instant::now() + left);
        let just_under = 8 * SECOND + Duration::from_micros(999);
        let table = [
            (Limit::Time, None, false, "waited 5s, the wait limit"),
            (
                Limit::Retries,
                None,
                false,
                "waited 4.234s, all retries are used up after 4 attempts",
            ),
            (
                Limit::Time,
                lasts(just_under),
                false,
                "waited 5s, the wait limit; the lease ends in 8s unless it is extended",
            ),
            (
                Limit::Time,
                lasts(SECOND / 4),
                true,
                "waited 5s, the wait limit; the lease ends in 250ms unless it is extended; this \
                 process itself holds the key: locks are not re-entrant",
            ),
            (
                Limit::Time,
                Some(crate::lease::after(Instant::now(), Duration::MAX)),
                false,
                "waited 5s, the wait limit",
            ),
        ];
        for (limit, held_until, held_here, expected) in table {
            let known = Known { answer: Some(Answer::Held), held_until, held_here };
            let error = gave_up(limit, known, &limits);
            assert_eq!(error.message(), Some(format!("the key is held: {expected}").as_str()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn w2_without_an_answer_the_message_says_so() {
        let known = Known { answer: None, held_until: None, held_here: false };
        let error = gave_up(Limit::Time, known, &limits());
        assert!(error.to_string().contains("no answer from the server"), "{error}");
    }
}

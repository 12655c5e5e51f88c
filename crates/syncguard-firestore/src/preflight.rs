//! The checks of [`Backend::preflight`](syncguard_core::Backend::preflight). They write nothing.

use std::time::Duration;

use gcloud_sdk::prost_types::Timestamp as Revision;
use syncguard_core::{
    Error, ErrorCode, Fence, Finding, Key, Level, LockId, LockRecord, Operation, Result, TOLERANCE,
    Timestamp,
};

use crate::clock::ClockOffset;
use crate::operations::{Commit, Index, Store};
use crate::record::{delete, put_expiry, put_fence, put_lock};

/// A revision that no document has.
const NEVER: Revision = Revision { seconds: 1, nanos: 0 };

/// Makes all checks at once, each within the command timeout.
pub(crate) async fn preflight(store: &Store) -> Vec<Finding> {
    let (clock, permissions, index) = tokio::join!(
        in_time(store, clock_offset(store)),
        in_time(store, write_nothing(store)),
        in_time(store, index(store)),
    );
    let mut findings = vec![database(store, clock.as_ref().map(|_| ())), clock_finding(clock)];
    findings.push(permissions_finding(store, permissions));
    findings.push(index_finding(index));
    findings
}

async fn in_time<T>(store: &Store, check: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(store.command_timeout, check).await {
        Ok(checked) => checked,
        Err(_) => Err(crate::error::failure(ErrorCode::NetworkTimeout)
            .with_message("no answer within the command timeout")),
    }
}

async fn clock_offset(store: &Store) -> Result<Option<ClockOffset>> {
    // Any document will do. It need not exist.
    let name = store.names.probe("clock");
    let ([_], offset) = store.begin().read([&name]).await?;
    Ok(offset)
}

/// Sends a commit that needs every permission that locks need, and that Firestore refuses as a whole,
/// because two of its preconditions are not met.
async fn write_nothing(store: &Store) -> Result<Commit> {
    let id = LockId::random()?;
    let key = Key::new(&format!("preflight:{}", id.as_str()))?;
    let names = store.names.of(&key);
    let (long_ago, fence) = (Timestamp::from_millis(1), Fence::granted(1)?);
    let record = LockRecord::new(key.clone(), id, fence, long_ago, long_ago);
    let writes = vec![
        delete(store.names.probe("deleted"), NEVER),
        put_expiry(store.names.probe("changed"), long_ago, NEVER),
        put_lock(names.lock, &record, None),
        put_fence(names.fence, fence, &key, None),
    ];
    store.begin().commit(writes, true).await
}

async fn index(store: &Store) -> Result<Index> {
    store.begin().index_of(&LockId::random()?).await
}

fn database(store: &Store, answered: Result<(), &Error>) -> Finding {
    const CODE: &str = "database";
    match answered {
        Ok(()) => fine(CODE, format!("{} answers", store.names.database)),
        Err(error) => failed(CODE, error),
    }
}

fn clock_finding(offset: Result<Option<ClockOffset>>) -> Finding {
    const CODE: &str = "clock-offset";
    let offset = match offset {
        Ok(Some(offset)) => offset,
        Ok(None) => return unknown(CODE, "Firestore did not tell its time"),
        Err(error) => return failed(CODE, &error),
    };
    let (off, side) = if offset.ahead() > Duration::ZERO {
        (offset.ahead(), "ahead of")
    } else {
        (offset.behind(), "behind")
    };
    let fact = format!(
        "the clock of this machine is {off:?} {side} Firestore's, give or take {:?}",
        offset.uncertainty()
    );
    let advice = "correct the clock and run a time service: locks are exclusive only while all clocks \
                  agree within a second";
    if offset.certainly_exceeds(TOLERANCE) {
        Finding::new(Level::Error, CODE, fact, advice)
    } else if offset.certainly_exceeds(ClockOffset::WARN_ABOVE) {
        Finding::new(Level::Warning, CODE, fact, advice)
    } else if offset.certainly_within(ClockOffset::WARN_ABOVE) {
        fine(CODE, fact)
    } else {
        unknown(CODE, format!("{fact}: the answer took too long to tell"))
    }
}

fn permissions_finding(store: &Store, commit: Result<Commit>) -> Finding {
    const CODE: &str = "permissions";
    match commit {
        Ok(_) if store.connection.is_emulator() => {
            unknown(CODE, "an emulator checks no permissions")
        }
        Ok(Commit::Refused) => fine(CODE, "documents can be read, created, changed and deleted"),
        Ok(Commit::Applied(_) | Commit::Unanswered) => {
            unknown(CODE, "Firestore did not answer as expected")
        }
        Err(error) => failed(CODE, &error),
    }
}

fn index_finding(index: Result<Index>) -> Finding {
    const CODE: &str = "index";
    match index {
        Ok(Index::Used) => fine(CODE, "look-ups by lock id use an index on lockId"),
        Ok(Index::Missing) => Finding::new(
            Level::Warning,
            CODE,
            "look-ups by lock id use no index",
            "create an ascending index on lockId: without it, each reads the whole collection",
        ),
        Ok(Index::NotTold) => unknown(CODE, "the server does not tell which index it uses"),
        Err(error) => failed(CODE, &error),
    }
}

fn fine(code: &'static str, fact: impl Into<std::borrow::Cow<'static, str>>) -> Finding {
    Finding::new(Level::Fine, code, fact, "")
}

fn unknown(code: &'static str, fact: impl Into<std::borrow::Cow<'static, str>>) -> Finding {
    Finding::new(Level::Unknown, code, fact, "")
}

/// A refusal that a retry does not help is an error of the setup. Otherwise the check was not made.
fn failed(code: &'static str, error: &Error) -> Finding {
    let level = if error.is_transient() { Level::Unknown } else { Level::Error };
    let error = error.clone().with_operation(Operation::Preflight);
    Finding::new(level, code, error.to_string(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_is_unknown_and_a_refusal_is_an_error() {
        let error = |code| Err(crate::error::failure(code));
        assert_eq!(index_finding(error(ErrorCode::NetworkTimeout)).level(), Level::Unknown);
        assert_eq!(index_finding(error(ErrorCode::InvalidArgument)).level(), Level::Error);
        assert_eq!(index_finding(Ok(Index::NotTold)).level(), Level::Unknown);
        assert_eq!(index_finding(Ok(Index::Missing)).level(), Level::Warning);
        assert_eq!(index_finding(Ok(Index::Used)).level(), Level::Fine);
        let clock = clock_finding(Err(crate::error::failure(ErrorCode::ServiceUnavailable)));
        assert_eq!(clock.level(), Level::Unknown);
        assert_eq!(clock_finding(Ok(None)).level(), Level::Unknown);
    }
}

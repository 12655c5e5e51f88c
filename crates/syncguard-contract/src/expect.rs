//! Assertions that say what was expected and what came.

use syncguard_core::{Acquired, ErrorCode, Fence, Lease, LockRecord, Result};

/// Checks a comparison or a condition. The message has the text of the expression, and the values.
macro_rules! check {
    ($left:expr, $operator:tt, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        assert!(
            left $operator right,
            "expected `{} {} {}`, but got {left:?} and {right:?}",
            stringify!($left),
            stringify!($operator),
            stringify!($right),
        );
    }};
    ($condition:expr) => {
        assert!($condition, "expected `{}`, but it is false", stringify!($condition));
    };
}

/// For `Option::expect` after a lookup of a held key.
pub(crate) const RECORD: &str = "expected a record of the held key, but got none";

/// For `Option::expect` after an extend of a live lease.
pub(crate) const EXTENDED: &str = "expected the live lease to be extended, but got None";

/// Returns the lease of an attempt that must have succeeded.
#[track_caller]
pub(crate) fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Held { remaining } => {
            panic!("expected a grant of the free key, but it is held (remaining: {remaining:?})")
        }
    }
}

#[track_caller]
pub(crate) fn assert_held(acquired: &Acquired) {
    if let Acquired::Granted(lease) = acquired {
        let fence = lease.fence().get();
        panic!("expected the key to be held, but it was granted with fence {fence}");
    }
}

#[track_caller]
pub(crate) fn assert_released(released: bool) {
    assert!(released, "expected release of a live lease to return true, but it returned false");
}

#[track_caller]
pub(crate) fn assert_not_released(released: bool) {
    assert!(!released, "expected release of an ended lease to return false, but it returned true");
}

#[track_caller]
pub(crate) fn assert_extended(extended: Option<Lease>) {
    extended.expect(EXTENDED);
}

#[track_caller]
pub(crate) fn assert_not_extended(extended: Option<Lease>) {
    if let Some(lease) = extended {
        panic!("expected no extension of an ended lease, but got {lease:?}");
    }
}

#[track_caller]
pub(crate) fn assert_rises(earlier: Fence, later: Fence) {
    assert!(later > earlier, "expected a fence above {earlier}, but got {later}");
}

#[track_caller]
pub(crate) fn assert_no_record(record: Option<LockRecord>) {
    if let Some(record) = record {
        panic!("expected no record of a lease, but got {record:?}");
    }
}

/// Checks the error of a wait whose limit passed while the key was held. On a machine so busy that no
/// attempt was answered before the limit, it is `NetworkTimeout` (W2).
#[track_caller]
pub(crate) fn assert_out_of_time<T>(outcome: Result<T>) {
    let code = code(outcome);
    assert!(
        matches!(code, ErrorCode::AcquisitionTimeout | ErrorCode::NetworkTimeout),
        "expected AcquisitionTimeout, but got {code}"
    );
}

/// Returns the code of a failure.
#[track_caller]
pub(crate) fn code<T>(outcome: Result<T>) -> ErrorCode {
    match outcome {
        Ok(_) => panic!("expected a failure, but the call succeeded"),
        Err(error) => error.code(),
    }
}

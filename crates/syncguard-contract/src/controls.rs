//! Negative controls: backends that are broken on purpose, each of which the right case rejects.
//!
//! A suite that passes a broken backend is itself broken.

mod broken;

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use syncguard_core::AnyBackend;

pub(crate) use self::broken::{Broken, Fault};
use crate::store::Store;
use crate::{cases, model, trials};

/// More than a case takes to reject a backend.
const LIMIT: Duration = Duration::from_secs(60);

/// What is broken, the case that must reject it, and what that case then says.
const CONTROLS: &[(&str, Fault, &str, &str)] = &[
    (
        "acquire_takes_a_held_key",
        Fault::AcquireTakesAHeldKey,
        "acquire::a2_a_held_key_is_not_granted",
        "a held key was granted",
    ),
    (
        "acquire_reads_then_writes",
        Fault::AcquireReadsThenWrites,
        "acquire::a1_one_winner_of_fifty_racers",
        "not one winner of fifty racers",
    ),
    (
        "fences_start_again_after_a_release",
        Fault::FencesStartAgainAfterARelease,
        "acquire::a3_fences_rise_across_releases",
        "fences do not rise",
    ),
    (
        "fences_rise_only_at_a_release",
        Fault::FencesRiseOnlyAtARelease,
        "acquire::a3_fences_rise_across_expiry",
        "fences do not rise",
    ),
    (
        "a_repeat_is_a_new_grant",
        Fault::RepeatIsANewGrant,
        "acquire::a4_the_same_id_again_is_the_same_lease",
        "a repeat is a new grant",
    ),
    (
        "keys_are_cut_to_100_bytes",
        Fault::KeysAreCut,
        "keys::k2_long_keys_that_differ_at_the_end_are_different_locks",
        "a free key was not granted",
    ),
    (
        "release_without_owner_check",
        Fault::ReleaseIgnoresTheOwner,
        "release::r1_a_stale_release_leaves_the_successor_alone",
        "a stale holder released the key",
    ),
    (
        "release_wants_the_latest_lease",
        Fault::ReleaseWantsTheLatestLease,
        "release::r1_a_lease_from_before_an_extension_still_counts",
        "it cannot release",
    ),
    (
        "release_is_true_twice",
        Fault::ReleaseIsTrueTwice,
        "release::r2_true_exactly_once_of_ten",
        "not exactly one release was true",
    ),
    (
        "extend_without_owner_check",
        Fault::ExtendIgnoresTheOwner,
        "release::r1_a_stale_extend_leaves_the_successor_alone",
        "a stale holder extended the key",
    ),
    (
        "extend_revives_a_dead_lease",
        Fault::ExtendRevives,
        "release::r3_extend_never_revives_a_dead_lease",
        "extend revived a lease",
    ),
    (
        "extend_adds_instead_of_replacing",
        Fault::ExtendAdds,
        "release::r3_extend_replaces_the_ttl",
        "the TTL was added",
    ),
    (
        "extend_raises_the_fence",
        Fault::ExtendRaisesTheFence,
        "release::r3_extend_keeps_the_fence",
        "extend changed the fence",
    ),
    (
        "leases_end_without_the_tolerance",
        Fault::NoTolerance,
        "time::t2_get_shows_a_lease_until_its_end",
        "it ended too early",
    ),
    (
        "a_look_shows_a_dead_lease",
        Fault::LookShowsTheDead,
        "lookup::l1_nothing_for_a_dead_lease",
        "a look by key shows a dead lease",
    ),
    (
        "a_look_by_id_shows_the_successor",
        Fault::FindIgnoresTheOwner,
        "lookup::l1_by_id_never_shows_the_successor",
        "a stale id shows a lease",
    ),
    (
        "a_look_renews_the_lease",
        Fault::LookRenews,
        "lookup::l2_looks_at_a_live_lease_change_nothing",
        "a look changed it",
    ),
    (
        "handoff_without_owner_check",
        Fault::HandoffIgnoresTheOwner,
        "handoff::g2_a_replaced_lease_is_not_handed_off",
        "a stale holder handed the key over",
    ),
    (
        "handoff_of_a_dead_lease",
        Fault::HandoffRevives,
        "handoff::g2_a_dead_lease_is_not_handed_off",
        "a lease that had ended was handed over",
    ),
    (
        "handoff_of_a_released_lease",
        Fault::HandoffRevives,
        "handoff::g2_a_released_or_unknown_lease_is_not_handed_off",
        "a lease that had ended was handed over",
    ),
    (
        "handoff_succeeds_twice",
        Fault::HandoffIgnoresTheOwner,
        "handoff::g3_one_success_of_ten_racers",
        "not one success",
    ),
    (
        "handoff_keeps_the_fence",
        Fault::HandoffKeepsTheFence,
        "handoff::g1_the_new_lease_is_the_one_asked_for",
        "the fence did not rise",
    ),
    (
        "handoff_leaves_the_old_id",
        Fault::HandoffLeavesTheOldId,
        "handoff::g1_the_old_id_is_gone",
        "the old id extends",
    ),
    (
        "handoff_with_a_gap",
        Fault::HandoffHasAGap,
        "handoff::g4_nobody_comes_in_between",
        "somebody came in between",
    ),
    (
        "notifications_never_come",
        Fault::NotificationsNeverCome,
        "notifications::w9_a_release_by_another_client_wakes_the_first",
        "not woken",
    ),
    (
        "an_interest_begins_at_the_first_poll",
        Fault::InterestBeginsAtTheFirstPoll,
        "notifications::w9_a_notification_comes_with_a_release",
        "no notification came",
    ),
    (
        "a_release_by_id_tells_nobody",
        Fault::ReleaseByIdTellsNobody,
        "notifications::w9_a_notification_comes_with_a_release",
        "no notification came (by id: true)",
    ),
];

/// The proof of the suite: one trial per broken backend, which passes when the right case rejects
/// that backend for the right reason.
#[must_use]
pub fn controls() -> Vec<Trial> {
    let trial = |&(what, fault, case, reason): &(_, Fault, _, _)| {
        Trial::test(format!("control::{what}::is_rejected"), move || {
            is_rejected(&rejection(case, fault, LIMIT)?, reason)
        })
    };
    let mut trials: Vec<_> = CONTROLS.iter().map(trial).collect();
    trials.push(Trial::test("control::a_case_that_hangs::is_rejected", || {
        let case = "acquire::a2_a_held_key_is_not_granted";
        let limit = Duration::from_millis(100);
        is_rejected(&rejection(case, Fault::AcquireNeverAnswers, limit)?, "it still runs")
    }));
    trials.push(Trial::test("control::a_model_trial_that_hangs::is_rejected", || {
        // A lease that is extended by a millisecond, so that it ends, lives on for an hour.
        let store = store_with(Fault::ExtendAdds);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_time().build()?;
        let outcome = model::agrees_with_memory(runtime.handle(), &store, Duration::from_secs(5));
        is_rejected(&outcome.err(), "but it hangs")
    }));
    trials
}

/// Passes if the suite rejected the backend for the right reason.
fn is_rejected(said: &Option<String>, reason: &str) -> Result<(), Failed> {
    match said {
        Some(said) if said.contains(reason) => Ok(()),
        Some(said) => Err(format!("expected a rejection with {reason:?}, but got {said:?}").into()),
        None => {
            Err(format!("expected a rejection with {reason:?}, but the suite passed it").into())
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}

fn store_with(fault: Fault) -> Store {
    let backend = AnyBackend::new(Broken::new(fault));
    Store::new(backend.clone(), backend)
}

/// What the case says against a backend with this fault, if anything.
fn rejection(case: &str, fault: Fault, limit: Duration) -> Result<Option<String>, Failed> {
    let case = cases::all().find(|known| known.name() == case);
    let case = case.ok_or("there is no case of this name")?;
    let (runtime, store) = (runtime()?, store_with(fault));
    let outcome = without_panic_message(|| runtime.block_on(trials::run(case, store, limit)));
    Ok(match outcome {
        Ok(outcome) => outcome.err().and_then(|failed| failed.message().map(Into::into)),
        Err(panic) => Some(message(panic.as_ref()).to_owned()),
    })
}

thread_local! {
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic of this thread, whose message does not go to the terminal: there it would look
/// like a failure.
fn without_panic_message<T>(f: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !EXPECTS_PANIC.get() {
                print(info);
            }
        }));
    });
    EXPECTS_PANIC.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTS_PANIC.set(false);
    outcome
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without a message")
}

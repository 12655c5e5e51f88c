//! Negative controls: backends and electors with one defect each, which the right case must reject.
//!
//! A suite that passes a defective backend proves nothing.

mod defective;

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use syncguard_core::AnyBackend;
use syncguard_memory::MemoryBackend;

pub(crate) use self::defective::{Defect, Defective};
use crate::elector::Elector;
use crate::store::Store;
use crate::{cases, model, trials};

/// More than a case takes to reject a backend.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the defect, the defect, the case that must reject it, and a part of its message.
const CONTROLS: &[(&str, Defect, &str, &str)] = &[
    (
        "acquire_takes_a_held_key",
        Defect::AcquireTakesAHeldKey,
        "acquire::a2_a_held_key_is_not_granted",
        "expected the key to be held, but it was granted with fence",
    ),
    (
        "acquire_reads_then_writes",
        Defect::AcquireReadsThenWrites,
        "acquire::a1_one_winner_of_fifty_racers",
        "expected one winner of fifty racers",
    ),
    (
        "fences_start_again_after_a_release",
        Defect::FencesStartAgainAfterARelease,
        "acquire::a3_fences_rise_across_releases",
        "expected rising fences",
    ),
    (
        "fences_rise_only_at_a_release",
        Defect::FencesRiseOnlyAtARelease,
        "acquire::a3_fences_rise_across_expiry",
        "expected rising fences",
    ),
    (
        "a_repeat_is_a_new_grant",
        Defect::RepeatIsANewGrant,
        "acquire::a4_the_same_id_again_is_the_same_lease",
        "expected the fence of the first grant",
    ),
    (
        "keys_are_cut_to_100_bytes",
        Defect::KeysAreCut,
        "keys::k2_long_keys_that_differ_at_the_end_are_different_locks",
        "expected a grant of the free key",
    ),
    (
        "release_without_owner_check",
        Defect::ReleaseIgnoresTheOwner,
        "release::r1_a_stale_release_leaves_the_successor_alone",
        "expected release of a stale lease to return false",
    ),
    (
        "release_wants_the_latest_lease",
        Defect::ReleaseWantsTheLatestLease,
        "release::r1_a_lease_from_before_an_extension_still_counts",
        "expected the first copy of the lease to release it",
    ),
    (
        "release_is_true_twice",
        Defect::ReleaseIsTrueTwice,
        "release::r2_true_exactly_once_of_ten",
        "expected exactly one release of ten",
    ),
    (
        "extend_without_owner_check",
        Defect::ExtendIgnoresTheOwner,
        "release::r1_a_stale_extend_leaves_the_successor_alone",
        "expected no extension of a stale lease",
    ),
    (
        "extend_revives_a_dead_lease",
        Defect::ExtendRevives,
        "release::r3_extend_never_revives_a_dead_lease",
        "expected no extension of an ended lease",
    ),
    (
        "extend_adds_instead_of_replacing",
        Defect::ExtendAdds,
        "release::r3_extend_replaces_the_ttl",
        "expected extend to replace the TTL",
    ),
    (
        "extend_raises_the_fence",
        Defect::ExtendRaisesTheFence,
        "release::r3_extend_keeps_the_fence",
        "expected extend to keep the fence",
    ),
    (
        "leases_end_without_the_tolerance",
        Defect::NoTolerance,
        "time::t2_get_shows_a_lease_until_its_end",
        "expected the lease to live for",
    ),
    (
        "a_lookup_shows_a_dead_lease",
        Defect::LookupShowsTheDead,
        "lookup::l1_no_record_of_a_dead_lease",
        "expected no record of a dead lease by key",
    ),
    (
        "a_lookup_by_id_shows_the_successor",
        Defect::FindIgnoresTheOwner,
        "lookup::l1_by_id_never_shows_the_successor",
        "expected no record by a stale id",
    ),
    (
        "a_lookup_renews_the_lease",
        Defect::LookupRenews,
        "lookup::l2_lookups_of_a_live_lease_change_nothing",
        "expected a lookup to change nothing",
    ),
    (
        "handoff_without_owner_check",
        Defect::HandoffIgnoresTheOwner,
        "handoff::g2_a_replaced_lease_is_not_handed_off",
        "expected no handoff of a stale lease",
    ),
    (
        "handoff_of_a_dead_lease",
        Defect::HandoffRevives,
        "handoff::g2_a_dead_lease_is_not_handed_off",
        "expected no handoff of an ended lease",
    ),
    (
        "handoff_of_a_released_lease",
        Defect::HandoffRevives,
        "handoff::g2_a_released_or_unknown_lease_is_not_handed_off",
        "expected no handoff of an ended lease",
    ),
    (
        "handoff_succeeds_twice",
        Defect::HandoffIgnoresTheOwner,
        "handoff::g3_one_success_of_ten_racers",
        "expected one success of ten racers",
    ),
    (
        "handoff_keeps_the_fence",
        Defect::HandoffKeepsTheFence,
        "handoff::g1_the_new_lease_is_the_one_asked_for",
        "expected a fence above",
    ),
    (
        "handoff_leaves_the_old_id",
        Defect::HandoffLeavesTheOldId,
        "handoff::g1_the_old_id_is_gone",
        "expected no extension by the old id",
    ),
    (
        "handoff_with_a_gap",
        Defect::HandoffHasAGap,
        "handoff::g4_the_key_stays_held_throughout",
        "expected the key to",
    ),
    (
        "notifications_never_come",
        Defect::NotificationsNeverCome,
        "notifications::w9_a_release_by_another_client_wakes_the_first_waiter",
        "expected the waiter to be woken at once",
    ),
    (
        "a_registration_counts_from_the_first_poll",
        Defect::RegistrationCountsFromTheFirstPoll,
        "notifications::w9_a_notification_comes_with_a_release",
        "expected a notification within",
    ),
    (
        "a_release_by_id_sends_no_notification",
        Defect::ReleaseByIdSendsNoNotification,
        "notifications::w9_a_notification_comes_with_a_release",
        "(release by id: true), but none came",
    ),
    (
        "publish_without_fence_check",
        Defect::PublishIgnoresTheFence,
        "publishing::n6_a_lower_fence_changes_nothing",
        "expected a lower fence to be refused",
    ),
    (
        "publish_reads_then_writes",
        Defect::PublishReadsThenWrites,
        "publishing::n6_the_highest_fence_of_ten_racers_stays",
        "expected what was published",
    ),
    (
        "publish_renews_the_lease",
        Defect::PublishRenews,
        "publishing::n6_publishing_leaves_the_lock_alone",
        "expected publishing to leave the lock record alone",
    ),
    (
        "publications_keep_their_first_expiry",
        Defect::PublicationsKeepTheirFirstExpiry,
        "publishing::n8_publishing_again_sets_the_expiry",
        "expected what was published",
    ),
    (
        "withdraw_without_fence_check",
        Defect::WithdrawIgnoresTheFence,
        "publishing::n8_a_withdrawal_leaves_a_higher_fence_alone",
        "expected what was published",
    ),
    (
        "withdraw_removes_nothing",
        Defect::WithdrawRemovesNothing,
        "publishing::n8_a_leader_withdraws_its_publication",
        "expected nothing after the withdrawal",
    ),
    (
        "publications_share_a_record",
        Defect::PublicationsShareARecord,
        "publishing::n8_each_key_has_a_publication_of_its_own",
        "expected what was published",
    ),
];

/// The name of the defect, the elector, the case that must reject it, and a part of its message.
const ELECTORS: &[(&str, Elector, &str, &str)] = &[
    (
        "a_leader_releases_before_its_work_has_ended",
        Elector::ReleasesFirst,
        "election::n2_the_lease_is_released_after_the_work_has_ended",
        "expected the lease to stand until the work has ended",
    ),
    (
        "a_leader_caches_that_it_leads",
        Elector::CachesABool,
        "election::n5_a_term_is_not_shown_after_a_successor_has_begun",
        "expected no term beside that of fence",
    ),
    (
        "an_observer_never_says_vacant",
        Elector::NeverSaysVacant,
        "election::n5_an_observer_sees_that_a_leader_vanished",
        "expected an observer to see these terms",
    ),
    (
        "a_resignation_is_forgotten_after_a_failed_request",
        Elector::ForgetsAFailedResignation,
        "election::n4_a_resignation_outlasts_failed_requests",
        "expected the key to be free after a resignation",
    ),
];

/// Returns the trials that prove the suite: one per defective backend or elector. A trial passes if the right
/// case rejects it for the right reason.
#[must_use]
pub fn controls() -> Vec<Trial> {
    let trial = |&(name, defect, case, reason): &(_, Defect, _, _)| {
        Trial::test(format!("control::{name}::is_rejected"), move || {
            is_rejected(&rejection(case, store_with(defect), LIMIT)?, reason)
        })
    };
    let mut trials: Vec<_> = CONTROLS.iter().map(trial).collect();
    trials.extend(ELECTORS.iter().map(|&(name, elector, case, reason)| {
        Trial::test(format!("control::{name}::is_rejected"), move || {
            let backend = AnyBackend::new(MemoryBackend::new());
            let store = Store::new(backend.clone(), backend).with_elector(elector);
            is_rejected(&rejection(case, store, LIMIT)?, reason)
        })
    }));
    trials.push(Trial::test("control::a_case_that_hangs::is_rejected", || {
        let case = "acquire::a2_a_held_key_is_not_granted";
        let limit = Duration::from_millis(100);
        is_rejected(
            &rejection(case, store_with(Defect::AcquireNeverAnswers), limit)?,
            "it still runs",
        )
    }));
    trials.push(Trial::test("control::a_model_trial_that_hangs::is_rejected", || {
        // The model extends a lease to 1 ms so that it ends. Here it lives for another hour.
        let store = store_with(Defect::ExtendAdds);
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

fn store_with(defect: Defect) -> Store {
    let backend = AnyBackend::new(Defective::new(defect));
    Store::new(backend.clone(), backend)
}

/// The message with which the case rejects this store, if it does.
fn rejection(case: &str, store: Store, limit: Duration) -> Result<Option<String>, Failed> {
    let case = cases::all().find(|known| known.name() == case);
    let case = case.ok_or("there is no case of this name")?;
    let runtime = runtime()?;
    let outcome = without_panic_message(|| runtime.block_on(trials::run(case, store, limit)));
    Ok(match outcome {
        Ok(outcome) => outcome.err().and_then(|failed| failed.message().map(Into::into)),
        Err(panic) => Some(message(panic.as_ref()).to_owned()),
    })
}

thread_local! {
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic of this thread. Its message does not go to the terminal, because there it would
/// look like a failure.
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

//! The queue by itself: who is next, and what must be woken and dropped.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use syncguard_core::{ErrorCode, Fence, LockId, Operation};

use super::*;
use crate::turns::Peers;

const MS: Duration = Duration::from_millis(1);

/// Grants are named.
type Named = Queue<&'static str>;

/// Nobody is notified, and nobody is served by timer.
const ALONE: Peers = Peers { notified: false, notify_us: false, poll: false };

fn terms() -> Terms {
    Terms {
        id: LockId::random().unwrap(),
        ttl: MS.try_into().unwrap(),
        max_hold: None,
        takes_handoff: true,
    }
}

/// A queue with these waiters.
fn queue(waiters: impl IntoIterator<Item = Number>) -> Named {
    let mut queue = Queue::default();
    for number in waiters {
        join(&mut queue, number);
    }
    queue
}

/// Joins, and lets nothing come of the attempt that may begin with it.
fn join(queue: &mut Named, number: Number) {
    if queue.join(number, terms(), Instant::now()) {
        queue.end_attempt(number);
    }
}

fn holder(number: Number, deadline: Instant) -> Holder {
    Holder { number, fence: Fence::new(number).unwrap(), deadline }
}

/// The key is held by this process until then.
fn held_here(queue: &mut Named, number: Number, now: Instant, deadline: Instant) {
    drop(queue.granted(None, holder(number, deadline), now));
}

fn error() -> Error {
    Error::new(ErrorCode::ServiceUnavailable, Operation::Acquire)
}

fn is_first(queue: &mut Named, number: Number, now: Instant) -> bool {
    matches!(queue.position(number, now), Position::First { .. })
}

fn first_until(queue: &mut Named, number: Number, now: Instant) -> Option<Instant> {
    match queue.position(number, now) {
        Position::First { held_until, .. } => held_until,
        other => panic!("expected the first position, but got {other:?}"),
    }
}

fn subscription() -> Subscription {
    Subscription::new(pending())
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Puts the waiter to sleep. Returns how often it is woken from here on.
fn sleeps(queue: &mut Named, number: Number) -> impl Fn() -> usize + use<> {
    let counter = Arc::new(Counter::default());
    let (woken, effects) = queue.poll_woken(number, Waker::from(counter.clone()));
    assert!(!woken, "{number} was woken before");
    drop(effects);
    move || counter.0.load(Ordering::SeqCst)
}

fn wake(effects: Effects) -> Option<Subscription> {
    effects.wake.into_iter().flatten().for_each(Waker::wake);
    effects.subscriptions.into_iter().flatten().next()
}

#[test]
fn w6_waiters_are_served_in_the_order_in_which_they_joined() {
    let now = Instant::now();
    let mut queue = queue([3, 5, 8]);
    assert_eq!(queue.len(), 3);
    assert!(!is_first(&mut queue, 5, now) && !is_first(&mut queue, 8, now));
    assert!(is_first(&mut queue, 3, now));
    for (leaves, next) in [(3, Some(5)), (8, Some(5)), (5, None)] {
        let (left, effects) = queue.leave(leaves, None);
        assert!(left.grant.is_none() && !left.uncertain);
        drop(effects);
        if let Some(next) = next {
            assert!(is_first(&mut queue, next, now), "{next} after {leaves}");
        }
    }
    assert!(queue.is_idle());
    // One that left has no position.
    assert!(matches!(queue.position(3, now), Position::Behind));
}

#[test]
fn w6_joining_begins_an_attempt_if_nobody_is_before_and_the_key_seems_free() {
    let now = Instant::now();
    let mut queue = Named::default();
    held_here(&mut queue, 1, now, now + MS);
    assert!(!queue.join(2, terms(), now), "the key is held");
    assert!(!queue.join(3, terms(), now + MS), "another waiter is first");
    let mut queue = Named::default();
    assert!(queue.join(1, terms(), now));
    assert!(!queue.begin_attempt(1), "an attempt is under way");
    assert!(queue.receiver(now, ALONE).is_none(), "a lease must not overtake the attempt");
}

#[test]
fn g2_a_lease_that_was_gone_before_its_handoff_holds_the_key_no_longer() {
    let now = Instant::now();
    let mut queue = queue([2]);
    held_here(&mut queue, 1, now, now + MS);
    assert!(queue.receiver(now, ALONE).is_some());
    let (present, effects) = queue.not_handed_off(2, Some(1), false);
    assert!(present);
    drop(effects);
    assert_eq!(first_until(&mut queue, 2, now), None, "the waiter tries at once");
}

#[test]
fn a1_a_late_answer_does_not_hide_the_newer_holder() {
    let now = Instant::now();
    let mut queue = Named::default();
    held_here(&mut queue, 7, now, now + MS);
    held_here(&mut queue, 5, now, now + MS * 9);
    assert_eq!(queue.held_until(now), Some(now + MS));
}

#[test]
fn w2_a_yield_is_no_silence_of_the_server() {
    let now = Instant::now();
    let mut queue = queue([2]);
    held_here(&mut queue, 1, now, now + MS * 9_999);
    drop(queue.released(1, now + MS * 2_000, ALONE));
    let joined = now + MS * 2_010;
    assert!(matches!(queue.answer(joined, joined), Some(Answer::Held)));
}

#[test]
fn w6_a_queue_is_needed_while_somebody_waits_receives_or_holds() {
    let now = Instant::now();
    let mut queue = queue([1]);
    assert!(!queue.is_idle(), "one waits");
    let receiver = queue.receiver(now, ALONE).unwrap();
    let (undelivered, effects) =
        queue.handed_off(receiver.number, holder(7, now + MS), "grant", now);
    assert!(undelivered.is_none());
    drop(effects);
    assert_eq!(queue.len(), 0);
    drop(queue.freed(Some(7)));
    assert!(!queue.is_idle(), "one has not picked up its grant");
    assert!(matches!(queue.position(1, now), Position::Granted("grant")));
    assert!(queue.is_idle());
    held_here(&mut queue, 8, now, now + MS);
    assert!(!queue.is_idle(), "the process holds the key");
    queue.forget(9);
    assert!(!queue.is_idle(), "another holder was forgotten");
    queue.forget(8);
    assert!(queue.is_idle());
}

#[test]
fn g7_when_an_attempt_may_begin() {
    let now = Instant::now();
    let mut queue = queue([1, 2]);
    assert!(!queue.begin_attempt(9), "for nobody");
    assert!(queue.begin_attempt(1));
    assert!(!queue.begin_attempt(1), "while one is under way");
    queue.attempt_held(1, now, now + MS);
    assert!(queue.begin_attempt(1), "after an answer");
    queue.attempt_failed(1, now, error());
    assert!(queue.begin_attempt(1), "after a failure");
    queue.attempt_failed(1, now, error());

    let receiver = queue.receiver(now, ALONE).unwrap();
    assert_eq!(receiver.number, 1);
    assert!(!queue.begin_attempt(1), "while a lease is handed off to it");
    assert!(matches!(queue.position(1, now), Position::Behind));
    let (present, effects) = queue.not_handed_off(1, None, true);
    assert!(present);
    drop(effects);
    assert!(!queue.begin_attempt(1), "while nobody knows whether it was served");
    assert!(matches!(queue.position(1, now), Position::Uncertain));
    assert!(queue.begin_attempt(1), "once it knows that");
}

#[test]
fn g5_who_receives_a_handoff() {
    let now = Instant::now();
    assert!(queue([]).receiver(now, ALONE).is_none(), "nobody waits");

    let mut queue = queue([1, 2]);
    assert!(queue.begin_attempt(1));
    assert!(queue.receiver(now, ALONE).is_none(), "the first waiter has an attempt under way");
    queue.attempt_held(1, now, now + MS);
    assert_eq!(queue.receiver(now, ALONE).map(|receiver| receiver.number), Some(1));
    assert!(queue.receiver(now, ALONE).is_none(), "it is being served by another release");
    drop(queue.not_handed_off(1, None, false));
    assert_eq!(queue.receiver(now, ALONE).map(|receiver| receiver.number), Some(1));
}

#[test]
fn g8_nobody_receives_a_handoff_while_others_have_their_turn() {
    let now = Instant::now();
    let mut queue = queue([1]);
    held_here(&mut queue, 7, now, now + MS);
    let later = now + Duration::from_secs(1);
    assert!(queue.receiver(later, ALONE).is_none());
}

#[test]
fn g6_a_handoff_to_a_waiter_that_left_returns_the_grant() {
    let now = Instant::now();
    let mut queue = queue([1, 2]);
    let receiver = queue.receiver(now, ALONE).unwrap();
    drop(queue.leave(1, None));
    let next = sleeps_after_wake(&mut queue, 2);
    let (undelivered, effects) =
        queue.handed_off(receiver.number, holder(7, now + MS), "grant", now);
    assert_eq!(undelivered, Some("grant"));
    wake(effects);
    assert_eq!(next(), 0, "the grant goes to nobody else");
    assert!(queue.holds(now), "it is this process that holds it until it is released");
}

/// As [`sleeps`], for a waiter that was woken before.
fn sleeps_after_wake(queue: &mut Named, number: Number) -> impl Fn() -> usize + use<> {
    let (woken, effects) = queue.poll_woken(number, Waker::noop().clone());
    assert!(woken, "{number} was not woken");
    drop(effects);
    sleeps(queue, number)
}

#[test]
fn g6_a_handoff_to_a_waiter_that_leaves_before_it_knows_returns_the_grant() {
    let now = Instant::now();
    let mut queue = queue([1]);
    queue.receiver(now, ALONE).unwrap();
    drop(queue.handed_off(1, holder(7, now + MS), "grant", now));
    let (left, effects) = queue.leave(1, None);
    assert_eq!(left.grant, Some("grant"));
    drop(effects);
}

#[test]
fn g7_a_handoff_without_an_answer_stays_uncertain_until_its_waiter_knows() {
    let now = Instant::now();
    let mut queue = queue([1, 2]);
    queue.receiver(now, ALONE).unwrap();
    drop(queue.not_handed_off(1, None, true));
    // The release tries again, and this time the backend says no.
    queue.receiver(now, ALONE).unwrap();
    drop(queue.not_handed_off(1, None, false));
    assert!(matches!(queue.position(1, now), Position::Uncertain), "the first one may be late");
    assert!(is_first(&mut queue, 1, now), "it is told once");

    // It leaves before it knows.
    queue.receiver(now, ALONE).unwrap();
    drop(queue.not_handed_off(1, None, true));
    let (left, effects) = queue.leave(1, None);
    assert!(left.uncertain);
    drop(effects);
    // It has left before the answer is missing.
    let (present, effects) = queue.not_handed_off(1, None, true);
    assert!(!present);
    drop(effects);
    assert!(is_first(&mut queue, 2, now));
}

#[test]
fn w3_until_when_the_key_is_held() {
    let now = Instant::now();
    let at = |millis: u32| now + MS * millis;
    let mut queue = queue([1]);
    assert_eq!(queue.held_until(now), None, "nothing is known");

    queue.begin_attempt(1);
    queue.attempt_held(1, now, at(50));
    assert_eq!(first_until(&mut queue, 1, now), Some(at(50)), "as an attempt learned");
    assert_eq!(first_until(&mut queue, 1, at(50)), None, "that is over");

    held_here(&mut queue, 7, now, at(30));
    assert_eq!(queue.held_until(now), Some(at(30)), "the deadline of the holder here counts");
    queue.extended(holder(7, at(40)));
    assert_eq!(queue.held_until(now), Some(at(40)));
    queue.extended(holder(8, at(99)));
    assert_eq!(queue.held_until(now), Some(at(40)), "another lease was extended");
    assert_eq!(queue.held_until(at(40)), Some(at(50)), "after it, the report counts again");
    assert!(queue.holds(at(39)) && !queue.holds(at(40)));

    queue.begin_attempt(1);
    queue.attempt_failed(1, now, error());
    assert_eq!(queue.held_until(at(40)), None, "a failure says nothing about the key");

    drop(queue.released(7, now, ALONE));
    assert_eq!(queue.held_until(now), None, "released here");
}

#[test]
fn w9_a_release_during_an_attempt_discards_its_report() {
    let now = Instant::now();
    let releases: [fn(&mut Named, Instant); 3] = [
        |queue, now| drop(queue.released(7, now, ALONE)),
        |queue, _| drop(queue.freed(Some(7))),
        |queue, _| drop(queue.not_handed_off(2, None, false)),
    ];
    for release in releases {
        let mut queue = queue([1, 2]);
        held_here(&mut queue, 7, now, now + MS * 90);
        queue.begin_attempt(1);
        release(&mut queue, now);
        queue.forget(7);
        queue.attempt_held(1, now, now + MS * 50);
        assert_eq!(first_until(&mut queue, 1, now), None, "it may tell of the lease before");
        queue.begin_attempt(1);
        queue.attempt_held(1, now, now + MS * 50);
        assert!(first_until(&mut queue, 1, now).is_some(), "the next attempt counts");
    }
}

#[test]
fn w9_what_a_notification_means() {
    let now = Instant::now();
    let mut queue = queue([1]);
    queue.begin_attempt(1);
    queue.attempt_held(1, now, now + MS * 50);
    assert_eq!(queue.notified(now), Heard::Relevant);
    assert_eq!(queue.held_until(now), None);
    held_here(&mut queue, 7, now, now + MS * 30);
    assert_eq!(queue.notified(now), Heard::Stale);
    assert_eq!(queue.held_until(now), Some(now + MS * 30));
    assert_eq!(queue.notified(now + MS * 30), Heard::Relevant, "the holder's time is over");
}

#[test]
fn w9_one_that_begins_to_listen_tries_again_soon() {
    let now = Instant::now();
    let mut queue = queue([1]);
    queue.begin_attempt(1);
    queue.attempt_held(1, now, now + MS * 50);
    queue.listens_from(now + MS);
    assert_eq!(queue.held_until(now), Some(now + MS));
}

#[test]
fn w7_one_that_leaves_passes_its_subscription_on_and_wakes_the_next() {
    let now = Instant::now();
    let mut queue = queue([1, 2, 3]);
    let (second, third) = (sleeps(&mut queue, 2), sleeps(&mut queue, 3));
    let (_, effects) = queue.leave(1, Some(subscription()));
    assert!(wake(effects).is_none(), "the subscription is kept");
    assert_eq!((second(), third()), (1, 0));
    let Position::First { subscription: Some(kept), .. } = queue.position(2, now) else {
        panic!("expected the subscription of the waiter before");
    };
    assert!(
        matches!(queue.position(2, now), Position::First { subscription: None, .. }),
        "it is given once"
    );
    // One that is not first, and has none, disturbs nobody.
    let (_, effects) = queue.leave(3, None);
    wake(effects);
    assert_eq!(second(), 1);
    let (_, effects) = queue.leave(2, Some(kept));
    assert!(wake(effects).is_some(), "nobody is left to listen");
    assert!(queue.is_idle());
}

#[test]
fn w7_a_subscription_is_dropped_when_the_last_waiter_is_served() {
    let now = Instant::now();
    let mut queue = queue([1, 2]);
    // The first waiter is served, and leaves its subscription to the next one.
    queue.receiver(now, ALONE).unwrap();
    drop(queue.handed_off(1, holder(7, now + MS), "one", now));
    assert!(matches!(queue.position(1, now), Position::Granted("one")));
    let (_, effects) = queue.leave(1, Some(subscription()));
    assert!(wake(effects).is_none());
    // The next one is served before it takes the subscription over.
    queue.receiver(now, ALONE).unwrap();
    let (_, effects) = queue.handed_off(2, holder(8, now + MS), "two", now);
    assert!(wake(effects).is_some(), "it is kept although nobody waits");
}

#[test]
fn w7_who_is_woken() {
    type Change = fn(&mut Named, Instant) -> Effects;
    let now = Instant::now();
    let table: [(&str, Change, usize); 6] = [
        ("a release", |queue, now| queue.released(7, now, ALONE), 1),
        ("a loss", |queue, _| queue.freed(Some(7)), 1),
        ("an undone grant", |queue, _| queue.freed(None), 1),
        ("a handoff that failed", |queue, _| queue.not_handed_off(1, None, false).1, 1),
        ("a grant to somebody else", |queue, now| queue.granted(None, holder(8, now), now), 0),
        ("a waiter behind that leaves", |queue, _| queue.leave(2, None).1, 0),
    ];
    for (what, change, expected) in table {
        let mut queue = queue([1, 2]);
        let (first, second) = (sleeps(&mut queue, 1), sleeps(&mut queue, 2));
        let effects = change(&mut queue, now);
        wake(effects);
        assert_eq!((first(), second()), (expected, 0), "{what}");
    }
}

#[test]
fn w7_a_grant_wakes_the_next_waiter() {
    let now = Instant::now();
    let mut queue = queue([1, 2]);
    let (first, second) = (sleeps(&mut queue, 1), sleeps(&mut queue, 2));
    queue.begin_attempt(1);
    let effects = queue.granted(Some(1), holder(7, now + MS), now);
    assert!(effects.waker.is_some(), "the waker of the waiter is dropped later");
    wake(effects);
    assert_eq!((first(), second()), (0, 1), "the first waiter has its answer");
    assert!(is_first(&mut queue, 2, now));

    queue.receiver(now, ALONE).unwrap();
    let second = sleeps_after_wake(&mut queue, 2);
    join(&mut queue, 3);
    let third = sleeps(&mut queue, 3);
    wake(queue.handed_off(2, holder(8, now + MS), "grant", now).1);
    assert_eq!((second(), third()), (1, 1), "the one that is served, and the next");
}

#[test]
fn w7_a_wake_before_the_sleep_is_not_missed() {
    let mut queue = queue([1]);
    drop(queue.freed(None));
    let (woken, effects) = queue.poll_woken(1, Waker::noop().clone());
    assert!(woken && effects.waker.is_some(), "the waker is not kept");
    let first = sleeps(&mut queue, 1);
    // Of two wakers, the later one counts.
    let last = sleeps(&mut queue, 1);
    wake(queue.freed(None));
    assert_eq!((first(), last()), (0, 1));
    // One that is in no queue must look what became of it.
    assert!(queue.poll_woken(9, Waker::noop().clone()).0);
}

#[test]
fn w2_what_the_last_attempt_says_to_whom() {
    let now = Instant::now();
    let at = |millis: u32| now + MS * millis;
    let held = |answer: Option<Answer>| match answer {
        None => "nothing",
        Some(Answer::Held) => "held",
        Some(Answer::Failed(_)) => "failed",
    };
    let mut queue = queue([1]);
    assert_eq!(held(queue.answer(now, now)), "nothing");

    queue.begin_attempt(1);
    queue.attempt_held(1, at(10), at(50));
    let table = [
        // Joined and asks, in milliseconds.
        (0, 20, "held"),
        (10, 20, "held"),
        (0, 60, "held"),
        (15, 20, "held"),
        (15, 50, "nothing"),
    ];
    for (joined, asks, expected) in table {
        assert_eq!(held(queue.answer(at(joined), at(asks))), expected, "{joined}, {asks}");
    }

    queue.begin_attempt(1);
    queue.attempt_failed(1, at(60), error());
    let table = [(0, 70, "failed"), (60, 70, "failed"), (61, 70, "nothing")];
    for (joined, asks, expected) in table {
        assert_eq!(held(queue.answer(at(joined), at(asks))), expected, "{joined}, {asks}");
    }

    held_here(&mut queue, 7, at(80), at(90));
    assert_eq!(held(queue.answer(at(85), at(86))), "held");
    assert_eq!(held(queue.answer(at(85), at(90))), "nothing");
    drop(queue.released(7, at(88), ALONE));
    assert_eq!(held(queue.answer(at(88), at(90))), "held", "it was, while it waited");
    assert_eq!(held(queue.answer(at(89), at(90))), "nothing");
}

//! N1 to N4: terms, their edges, their pairing with the work, and how they end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::waiters::MS;
use support::{next_all, with_notifications_and_handoff};
use syncguard::{
    Backend, Backoff, CancellationToken, Election, Error, ErrorCode, Jitter, LockManager,
    Operation, Outcome, Result,
};
use syncguard_memory::{Fault, FaultyBackend};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, timeout};

const TTL: Duration = Duration::from_secs(15);
const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: impl fmt::Display) {
    log.lock().unwrap().push(what.to_string());
}

fn noted(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

/// Notes the end of the work, however it ends.
struct Stopped(Log, &'static str);

impl Drop for Stopped {
    fn drop(&mut self) {
        note(&self.0, format!("{} stopped", self.1));
    }
}

/// A candidate that works until its term is about to end.
fn leads(election: Election, name: &'static str, log: &Log) -> JoinHandle<Result<()>> {
    let log = log.clone();
    Handle::current().spawn(async move {
        election
            .lead(async |term| -> Result<()> {
                note(&log, format!("{name} started"));
                let _stopped = Stopped(log.clone(), name);
                term.ending().await;
                Ok(())
            })
            .await
    })
}

fn fail_extends(backend: &FaultyBackend) {
    backend.on_call(|operation, _| match operation {
        Operation::Extend => Fault::Fail(ErrorCode::ServiceUnavailable),
        _ => Fault::None,
    });
}

#[tokio::test(start_paused = true)]
async fn n1_a_term_is_a_lease_on_the_lock_of_the_key() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let election = locks.election("key").ttl(TTL);
    assert!(election.term().is_none());
    let term = election.campaign().await.unwrap();
    let record = locks.get("key").await.unwrap().unwrap();
    assert_eq!(record.fence(), term.fence());
    assert_eq!(election.term().map(|term| term.fence()), Some(record.fence()));
    assert_eq!(locks.terms(), 1);
    assert!(locks.lock("key").try_acquire().await.unwrap().is_none());
    // It is kept alive.
    sleep(10 * TTL).await;
    assert!(term.remaining() > TTL / 2);
    assert!(term.resign().await.unwrap());
    assert_eq!((term.remaining(), locks.terms()), (Duration::ZERO, 0));
    assert!(election.term().is_none());
    assert!(!locks.is_locked("key").await.unwrap());
    let next = election.campaign().await.unwrap();
    assert!(next.fence() > term.fence());
}

#[tokio::test(start_paused = true)]
async fn n1_a_term_is_not_handed_off_to_a_candidate_of_the_same_process() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").campaign().await.unwrap();
    let next = Handle::current().spawn({
        let election = locks.election("key");
        async move { election.campaign().await }
    });
    sleep(SECOND).await;
    let resigned = Instant::now();
    assert!(term.resign().await.unwrap());
    let next = next.await.unwrap().unwrap();
    assert!(resigned.elapsed() < 100 * MS);
    assert_eq!(backend.count(Operation::Handoff), 0);
    // A lock request of the same process gets the lease of a term by handoff, as any other.
    let request = Handle::current().spawn(locks.lock("key").wait(TTL).acquire());
    sleep(MS).await;
    assert!(next.resign().await.unwrap());
    drop(request.await.unwrap().unwrap());
    assert_eq!(backend.count(Operation::Handoff), 1);
}

#[tokio::test(start_paused = true)]
async fn n1_a_campaign_outlasts_an_outage_and_leaves_nothing_when_it_is_dropped() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    backend.on_call(|_, _| Fault::Fail(ErrorCode::ServiceUnavailable));
    let election = locks.election("key");
    assert!(timeout(300 * SECOND, election.campaign()).await.is_err());
    let campaign = Handle::current().spawn({
        let election = election.clone();
        async move { election.campaign().await }
    });
    sleep(300 * SECOND).await;
    backend.on_call(|_, _| Fault::None);
    let back = Instant::now();
    let term = campaign.await.unwrap().unwrap();
    assert!(back.elapsed() < SECOND, "after {:?}", back.elapsed());
    // A candidate that is dropped while the server answers leaves no lease.
    drop(term);
    sleep(MS).await;
    backend.next(Operation::Acquire, Fault::DelayReply(SECOND));
    assert!(timeout(MS, election.campaign()).await.is_err());
    sleep(2 * SECOND).await;
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(locks.waiters(), 0);
}

#[tokio::test(start_paused = true)]
async fn n1_a_campaign_ends_by_its_token_by_shutdown_and_by_an_error_that_stays() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let stop = CancellationToken::new();
    let _held = locks.election("key").campaign().await.unwrap();
    let election = locks.election("key").cancel(stop.clone());
    let campaign = Handle::current().spawn(async move { election.campaign().await.map(drop) });
    sleep(SECOND).await;
    stop.cancel();
    assert_eq!(campaign.await.unwrap().unwrap_err().code(), ErrorCode::Aborted);
    let others = LockManager::new(backend.clone());
    let lead = leads(others.election("key"), "bob", &Log::default());
    sleep(SECOND).await;
    others.shutdown().await.unwrap();
    lead.await.unwrap().unwrap();
    backend.next(Operation::Acquire, Fault::Fail(ErrorCode::AuthFailed));
    let refused = locks.election("other").campaign().await.unwrap_err();
    assert_eq!((refused.code(), refused.operation()), (ErrorCode::AuthFailed, Operation::Campaign));
    let log = Log::default();
    // The pool of the backend may be closed: then nobody has stopped this candidate.
    for code in [ErrorCode::AuthFailed, ErrorCode::Aborted] {
        backend.next(Operation::Acquire, Fault::Fail(code));
        let refused = leads(locks.election("other"), "ada", &log).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), code);
    }
    assert_eq!(noted(&log), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn n1_what_cannot_be_is_refused_before_anything_is_sent() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let elections = [
        locks.election(""),
        locks.election("key").ttl(Duration::ZERO),
        locks.election("key").ttl(TTL).margin(TTL / 2 + MS),
        locks.election("key").candidate("x".repeat(257)),
        locks.election("key").candidate("a\0b"),
        locks.election("key").value(vec![0; 4_097]),
    ];
    for election in elections {
        let refused = election.campaign().await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{refused}");
        let error = election.lead(async |_| -> Result<()> { panic!("it did not lead") }).await;
        assert_eq!(error.unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    assert_eq!(backend.history().len(), 0);
    assert!(locks.election("").observe().is_err());
}

#[tokio::test(start_paused = true)]
async fn n2_a_term_ends_a_margin_before_its_deadline_and_is_lost_at_its_deadline() {
    for margin in [None, Some(2 * SECOND), Some(Duration::ZERO)] {
        let backend = with_notifications_and_handoff();
        let locks = LockManager::new(backend.clone());
        let election = locks.election("key").ttl(TTL);
        let election = margin.map_or(election.clone(), |margin| election.margin(margin));
        let term = election.campaign().await.unwrap();
        fail_extends(&backend);
        let began = Instant::now();
        term.ending().await;
        let margin = margin.unwrap_or(TTL / 3);
        assert_eq!(began.elapsed(), TTL - margin);
        assert_eq!(term.remaining(), margin);
        assert_eq!(election.health().is_ok(), !margin.is_zero());
        term.lost().await;
        assert_eq!(began.elapsed(), TTL);
        assert_eq!(term.remaining(), Duration::ZERO);
        assert!(term.lost_token().is_cancelled());
        assert!(election.term().is_none());
        // Its holder has not let go.
        assert_eq!(election.health().unwrap_err().code(), ErrorCode::Lost);
        drop(term);
        assert!(election.health().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn n2_an_end_that_was_announced_stays_although_a_renewal_succeeds() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    fail_extends(&backend);
    term.ending().await;
    backend.on_call(|_, _| Fault::None);
    sleep(2 * TTL).await;
    // The lease is renewed, because the work has not ended.
    assert!(term.remaining() > TTL / 2);
    assert!(timeout(Duration::ZERO, term.ending()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn n2_a_late_observer_of_the_end_sees_it_too() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    fail_extends(&backend);
    // Nobody looks while it is announced.
    sleep(TTL - 2 * SECOND).await;
    backend.on_call(|_, _| Fault::None);
    sleep(SECOND).await;
    assert!(term.remaining() > TTL / 2);
    assert!(timeout(Duration::ZERO, term.ending()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn n2_work_that_does_not_finish_up_is_dropped_and_only_then_the_lease_is_released() {
    let log = Log::default();
    for renewed in [false, true] {
        log.lock().unwrap().clear();
        let backend = with_notifications_and_handoff();
        let locks = LockManager::new(backend.clone());
        let watched = log.clone();
        backend.on_call(move |operation, _| match operation {
            Operation::Extend if !renewed => Fault::Fail(ErrorCode::ServiceUnavailable),
            Operation::Release => {
                note(&watched, "release sent");
                Fault::None
            }
            _ => Fault::None,
        });
        let stop = CancellationToken::new();
        let election = locks.election("key").ttl(TTL).cancel(stop.clone());
        let (began, dropped) = (Instant::now(), Mutex::new(None));
        let lead = election.lead(async |_| -> Result<()> {
            let _stopped = Stopped(log.clone(), "ada");
            let _dropped = OnDrop(|| *dropped.lock().unwrap() = Some(began.elapsed()));
            if renewed {
                stop.cancel();
            }
            std::future::pending().await
        });
        let _ = timeout(TTL + MS, lead).await;
        // Cancelled at the start, it has the margin. Without a renewal, it has until the deadline.
        assert_eq!(*dropped.lock().unwrap(), Some(if renewed { TTL / 3 } else { TTL }));
        sleep(SECOND).await;
        assert_eq!(noted(&log), ["ada stopped", "release sent"], "renewed: {renewed}");
    }
}

/// Calls a closure when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[tokio::test(start_paused = true)]
async fn n2_the_lease_is_not_released_before_work_in_other_threads_has_ended() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let election = locks.election("key").ttl(TTL);
    let term = election.campaign().await.unwrap();
    let work = term.guard_work().unwrap();
    let resigned = Handle::current().spawn({
        let term = term.clone();
        async move { term.resign().await }
    });
    // The lease is renewed meanwhile.
    sleep(10 * TTL).await;
    assert!(term.lost_token().is_cancelled() && term.guard_work().is_none());
    assert_eq!(election.health().unwrap_err().code(), ErrorCode::Lost);
    assert!(locks.is_locked("key").await.unwrap());
    assert_eq!(backend.count(Operation::Release), 0);
    drop(work);
    assert!(resigned.await.unwrap().unwrap());
    assert!(election.health().is_ok());
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn n2_a_term_that_is_over_is_known_although_a_clone_leads_again() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let election = locks.election("key").ttl(TTL);
    let old = election.campaign().await.unwrap();
    backend.lose_lease("key").await.unwrap();
    let new = election.clone().campaign().await.unwrap();
    sleep(TTL / 3).await;
    assert_eq!(election.term().map(|term| term.fence()), Some(new.fence()));
    assert_eq!(election.health().unwrap_err().code(), ErrorCode::Lost);
    assert_eq!(locks.terms(), 1);
    drop(old);
    assert!(election.health().is_ok());
}

#[tokio::test(start_paused = true)]
async fn n2_the_loss_of_the_lease_stops_the_work_at_the_next_renewal() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let log = Log::default();
    let lead = leads(locks.election("key").ttl(TTL), "ada", &log);
    sleep(MS).await;
    backend.lose_lease("key").await.unwrap();
    let other = LockManager::new(backend.clone());
    let other = other.lock("key").ttl(TTL).acquire().await.unwrap();
    sleep(TTL / 3).await;
    assert_eq!(noted(&log), ["ada started", "ada stopped"]);
    // It campaigns again.
    other.release().await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(noted(&log), ["ada started", "ada stopped", "ada started"]);
    lead.abort();
}

#[tokio::test(start_paused = true)]
async fn n3_each_term_has_one_start_and_one_stop_and_no_two_overlap() {
    let backend = with_notifications_and_handoff();
    let log = Log::default();
    let managers: Vec<_> = (0..3).map(|_| LockManager::new(backend.clone())).collect();
    let mut tasks = Vec::new();
    for (locks, name) in managers.iter().zip(["ada", "bob", "carl"]) {
        let (election, log) = (locks.election("key").ttl(TTL), log.clone());
        tasks.push(Handle::current().spawn(async move {
            election
                .lead(async |_| -> Result<(), &str> {
                    note(&log, format!("{name} started"));
                    let _stopped = Stopped(log.clone(), name);
                    sleep(SECOND).await;
                    Err("this is how it ends")
                })
                .await
        }));
    }
    sleep(100 * SECOND).await;
    for locks in &managers {
        locks.shutdown().await.unwrap();
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let log = noted(&log);
    assert!(log.len() > 50, "{} starts and stops", log.len());
    assert_eq!(log.len() % 2, 0);
    for term in log.chunks(2) {
        let (name, started) = term[0].split_once(' ').unwrap();
        assert_eq!((started, term[1].clone()), ("started", format!("{name} stopped")));
    }
    for name in ["ada", "bob", "carl"] {
        assert!(log.contains(&format!("{name} started")), "{name} never led");
    }
}

#[tokio::test(start_paused = true)]
async fn n3_work_that_fails_at_its_start_lets_others_win() {
    let backend = with_notifications_and_handoff();
    let (broken, well) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let log = Log::default();
    let failing = {
        let (election, log) = (broken.election("key").ttl(TTL), log.clone());
        Handle::current().spawn(async move {
            election
                .lead(async |_| -> Result<(), &str> {
                    note(&log, "failed");
                    Err("no configuration")
                })
                .await
        })
    };
    // Alone, it tries ever less often: after 1, 2, 4, 8 s, and then every 10 s.
    sleep(100 * SECOND).await;
    let alone = noted(&log).len();
    assert!((12..=30).contains(&alone), "{alone} failures");
    let leading = leads(well.election("key").ttl(TTL), "bob", &log);
    sleep(11 * SECOND).await;
    assert_eq!(noted(&log).last().map(String::as_str), Some("bob started"));
    for task in [leading, failing] {
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn n3_a_panic_of_the_work_ends_the_term_and_goes_on() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let election = locks.election("key").ttl(TTL);
    let lead = election.clone();
    let lead = async move { lead.lead(async |_| -> Result<()> { panic!("a bug") }).await };
    assert!(Handle::current().spawn(lead).await.unwrap_err().is_panic());
    sleep(MS).await;
    assert!(!locks.is_locked("key").await.unwrap());
    assert_eq!(locks.terms(), 0);
    assert!(election.term().is_none());
}

#[tokio::test(start_paused = true)]
async fn n3_a_clone_of_a_term_does_not_outlive_the_work() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let stop = CancellationToken::new();
    let election = locks.election("key").ttl(TTL).cancel(stop.clone());
    let kept = Mutex::new(None);
    election
        .lead(async |term| -> Result<()> {
            *kept.lock().unwrap() = Some(term);
            stop.cancel();
            Ok(())
        })
        .await
        .unwrap();
    let term = kept.lock().unwrap().take().unwrap();
    assert_eq!(term.remaining(), Duration::ZERO);
    assert!(timeout(Duration::ZERO, term.lost()).await.is_ok());
    assert!(!locks.is_locked("key").await.unwrap());
    // Dropping the future of `lead` does it too.
    let election = election.cancel(CancellationToken::new());
    let lead = election.lead(async |term| -> Result<()> {
        *kept.lock().unwrap() = Some(term);
        std::future::pending().await
    });
    assert!(timeout(SECOND, lead).await.is_err());
    let term = kept.lock().unwrap().take().unwrap();
    assert_eq!(term.remaining(), Duration::ZERO);
    sleep(MS).await;
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn n4_a_resignation_is_tried_until_it_is_answered() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    let codes = [ErrorCode::ServiceUnavailable, ErrorCode::AuthFailed, ErrorCode::Internal];
    next_all(&backend, Operation::Release, codes.map(Fault::Fail));
    let both = tokio::join!(term.resign(), term.resign());
    assert!(both.0.unwrap() && both.1.unwrap());
    assert_eq!(backend.count(Operation::Release), 4);
    assert!(term.resign().await.unwrap());
    assert_eq!(backend.count(Operation::Release), 4);
    assert!(!locks.is_locked("key").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn n4_a_resignation_goes_on_without_its_caller_until_the_lease_is_over() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let failures = Arc::new(Mutex::new(0));
    let counted = failures.clone();
    let broken = LockManager::builder(backend.clone())
        .on_release_error(move |_| *counted.lock().unwrap() += 1)
        .build();
    let term = locks.election("key").ttl(TTL).campaign().await.unwrap();
    next_all(&backend, Operation::Release, [Fault::Fail(ErrorCode::AuthFailed); 2]);
    assert!(timeout(MS, term.resign()).await.is_err());
    drop(term);
    // Shutdown waits for it.
    locks.shutdown().await.unwrap();
    assert_eq!(backend.count(Operation::Release), 3);
    assert_eq!(backend.inner().get(&"key".try_into().unwrap()).await.unwrap(), None);
    // It is not tried for ever.
    let term = broken.election("key").ttl(TTL).campaign().await.unwrap();
    backend.on_call(|operation, _| match operation {
        Operation::Release => Fault::Fail(ErrorCode::AuthFailed),
        _ => Fault::None,
    });
    let began = Instant::now();
    assert_eq!(term.resign().await.unwrap_err().code(), ErrorCode::AuthFailed);
    assert!((TTL - SECOND..=TTL).contains(&began.elapsed()), "{:?}", began.elapsed());
    drop(term);
    sleep(SECOND).await;
    assert_eq!(*failures.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn n4_a_resignation_waits_no_longer_than_the_lease_lasts() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::builder(backend.clone()).shutdown_limit(20 * TTL).build();
    let log = Log::default();
    let lead = leads(locks.election("key").ttl(TTL), "ada", &log);
    sleep(SECOND).await;
    // The store is away, and a renewal is under way.
    backend.on_call(|_, _| Fault::Hang);
    sleep(TTL / 3).await;
    let began = Instant::now();
    locks.shutdown().await.unwrap();
    lead.await.unwrap().unwrap();
    // The renewal may have reached the store, so the lease may last that long.
    assert!(began.elapsed() <= TTL, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn n4_shutdown_hands_over_in_milliseconds() {
    let backend = with_notifications_and_handoff();
    let (old, new) = (LockManager::new(backend.clone()), LockManager::new(backend.clone()));
    let log = Log::default();
    let first = leads(old.election("key").ttl(TTL), "old", &log);
    sleep(SECOND).await;
    let second = leads(new.election("key").ttl(TTL), "new", &log);
    sleep(SECOND).await;
    let began = Instant::now();
    old.shutdown().await.unwrap();
    // The process may end here.
    assert_eq!(noted(&log)[..2], ["old started", "old stopped"]);
    assert_eq!(backend.count(Operation::Release), 1);
    first.await.unwrap().unwrap();
    sleep(10 * MS).await;
    assert_eq!(noted(&log), ["old started", "old stopped", "new started"]);
    assert!(began.elapsed() <= 20 * MS, "{:?}", began.elapsed());
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn n4_a_resignation_from_outside_waits_for_the_work() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let log = Log::default();
    let election = locks.election("key").ttl(TTL);
    let lead = {
        let (election, log) = (election.clone(), log.clone());
        Handle::current().spawn(async move {
            election
                .lead(async |term| -> Result<()> {
                    let _stopped = Stopped(log.clone(), "ada");
                    term.ending().await;
                    sleep(SECOND).await;
                    note(&log, "finished up");
                    Ok(())
                })
                .await
        })
    };
    sleep(SECOND).await;
    let term = election.term().unwrap();
    let began = Instant::now();
    assert!(term.resign().await.unwrap());
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(noted(&log), ["finished up", "ada stopped"]);
    lead.abort();
}

#[tokio::test(start_paused = true)]
async fn n3_events_tell_of_campaigns_and_terms() {
    let backend = with_notifications_and_handoff();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let locks = LockManager::builder(backend.clone())
        .observer(move |event| {
            let event = (event.operation(), event.outcome(), event.duration());
            if matches!(event.0, Operation::Campaign | Operation::Lead) {
                seen.lock().unwrap().push(event);
            }
        })
        .build();
    let election = locks.election("key").ttl(TTL);
    let term = election.campaign().await.unwrap();
    sleep(SECOND).await;
    term.resign().await.unwrap();
    let term = election.campaign().await.unwrap();
    fail_extends(&backend);
    term.lost().await;
    drop(term);
    let lost = Outcome::Failed(ErrorCode::Lost);
    assert_eq!(
        *events.lock().unwrap(),
        [
            (Operation::Campaign, Outcome::Done, Duration::ZERO),
            (Operation::Lead, Outcome::Done, SECOND),
            (Operation::Campaign, Outcome::Done, Duration::ZERO),
            (Operation::Lead, lost, TTL),
        ]
    );
    assert_eq!(locks.terms(), 0);
    // A campaign whose future is dropped has its event too.
    let _holder = locks.lock("key").ttl(TTL).acquire().await.unwrap();
    events.lock().unwrap().clear();
    assert!(timeout(SECOND, locks.election("key").campaign()).await.is_err());
    let aborted = Outcome::Failed(ErrorCode::Aborted);
    assert_eq!(*events.lock().unwrap(), [(Operation::Campaign, aborted, SECOND)]);
}

#[tokio::test(start_paused = true)]
async fn n3_pauses_grow_only_while_terms_are_short() {
    let backend = with_notifications_and_handoff();
    let locks = LockManager::new(backend.clone());
    let pause = Backoff::exponential(SECOND).with_jitter(Jitter::None);
    let election = locks.election("key").ttl(TTL).pause(pause);
    let began = Instant::now();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let counted = starts.clone();
    let lead = election.lead(async |_| -> Result<(), Error> {
        let number = {
            let mut starts = counted.lock().unwrap();
            starts.push(began.elapsed().as_secs());
            starts.len()
        };
        if number == 4 {
            sleep(2 * TTL).await;
        }
        Ok(())
    });
    assert!(timeout(41 * SECOND, lead).await.is_err());
    assert_eq!(*starts.lock().unwrap(), [0, 1, 3, 7, 38, 40]);
    advance(MS).await;
}

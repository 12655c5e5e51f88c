//! The combiner, on a server that a test plays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use syncguard_backend::{Combiner, GroupCommit, Requests, TimeLimits};
use syncguard_core::{Error, ErrorCode, Operation, Result, Sent};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
/// The time limits of operations that a task sends.
const UNSENT: Duration = Duration::from_secs(600);
const UNANSWERED: Duration = Duration::from_secs(900);

/// A server that answers each number with its double, when the test says so. It refuses multiples of
/// 100.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    /// Nothing is at hand, and a connection takes a second.
    far: AtomicBool,
    /// No connection can be had.
    down: AtomicBool,
    /// Requests are answered at once.
    immediate: AtomicBool,
    requests: Mutex<VecDeque<(Vec<u64>, oneshot::Sender<()>)>>,
    connects: AtomicUsize,
    connections: AtomicUsize,
    most_connections: AtomicUsize,
}

impl Server {
    fn combiner(&self, lanes: usize, cap: usize) -> Combiner<Self> {
        self.combiner_that_waits(lanes, cap, Duration::ZERO)
    }

    fn combiner_that_waits(&self, lanes: usize, cap: usize, short: Duration) -> Combiner<Self> {
        let limits = TimeLimits { short_request: short, unsent: UNSENT, unanswered: UNANSWERED };
        Combiner::new(self.clone(), GroupCommit { lanes, cap }, limits)
    }

    /// Waits for the next request and returns its operations. It is answered when the sender sends, or
    /// is dropped.
    async fn request(&self) -> (Vec<u64>, oneshot::Sender<()>) {
        // Not a timeout: in paused time, it would never fire while this yields.
        let begun = std::time::Instant::now();
        while begun.elapsed() < 10 * SECOND {
            if let Some(request) = self.0.requests.lock().unwrap().pop_front() {
                return request;
            }
            yield_now().await;
        }
        panic!("no request was sent");
    }

    fn idle(&self) -> bool {
        self.0.requests.lock().unwrap().is_empty()
    }
}

/// Counts the connections in use.
struct Connection(Server);

impl Connection {
    fn new(server: &Server) -> Self {
        let open = server.0.connections.fetch_add(1, Ordering::SeqCst) + 1;
        server.0.most_connections.fetch_max(open, Ordering::SeqCst);
        Self(server.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Requests for Server {
    type Operation = u64;
    type Answer = u64;
    type Connection = Connection;

    fn connection_at_hand(&self) -> Option<Connection> {
        let far = self.0.far.load(Ordering::SeqCst) || self.0.down.load(Ordering::SeqCst);
        (!far).then(|| Connection::new(self))
    }

    async fn connect(&self) -> Result<Connection> {
        self.0.connects.fetch_add(1, Ordering::SeqCst);
        let down = self.0.down.load(Ordering::SeqCst);
        if self.0.far.load(Ordering::SeqCst) {
            sleep(SECOND).await;
        }
        match down {
            true => Err(Error::new(ErrorCode::ServiceUnavailable, Operation::Acquire)),
            false => Ok(Connection::new(self)),
        }
    }

    async fn send_alone(&self, connection: Connection, operation: u64) -> Result<u64> {
        self.send(connection, vec![operation]).await.remove(0)
    }

    async fn send(&self, connection: Connection, operations: Vec<u64>) -> Vec<Result<u64>> {
        if !self.0.immediate.load(Ordering::SeqCst) {
            let (answer, answered) = oneshot::channel();
            self.0.requests.lock().unwrap().push_back((operations.clone(), answer));
            let _ = answered.await;
        }
        drop(connection);
        let answer = |n: u64| match n % 100 {
            0 => Err(Error::new(ErrorCode::Internal, Operation::Acquire)),
            _ => Ok(n * 2),
        };
        operations.into_iter().map(answer).collect()
    }

    fn abandoned(&self) -> Error {
        Error::new(ErrorCode::NetworkTimeout, Operation::Acquire)
    }

    fn unsent(&self) -> Error {
        Error::new(ErrorCode::RateLimited, Operation::Acquire)
    }

    fn unanswered(&self) -> Error {
        Error::new(ErrorCode::AcquisitionTimeout, Operation::Acquire)
    }
}

/// Polls once, as a caller that goes on with something else.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Starts an operation in a task, and lets it go as far as it can.
async fn start(combiner: &Combiner<Server>, n: u64) -> (JoinHandle<Result<u64>>, Sent) {
    let (combiner, sent) = (combiner.clone(), Sent::default());
    let mark = sent.clone();
    let task = Handle::current().spawn(async move { combiner.run(n, &mark).await });
    yield_now().await;
    (task, sent)
}

#[tokio::test(start_paused = true)]
async fn an_operation_alone_is_sent_at_once_by_its_caller() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let sent = Sent::default();
    let mut run = pin!(combiner.run(1, &sent));
    assert!(poll_once(run.as_mut()).is_pending());
    assert!(sent.is_marked());
    let (operations, answer) = server.0.requests.lock().unwrap().pop_front().unwrap();
    assert_eq!(operations, [1]);
    answer.send(()).unwrap();
    assert_eq!(run.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn operations_that_arrive_during_a_request_share_the_next_one_up_to_the_cap() {
    let server = Server::default();
    let combiner = server.combiner(1, 3);
    let mut tasks = Vec::new();
    for n in 1..=6 {
        tasks.push(start(&combiner, n).await);
    }
    assert!(!tasks[1].1.is_marked(), "expected it to wait");
    for expected in [&[1][..], &[2, 3, 4], &[5, 6]] {
        let (operations, answer) = server.request().await;
        assert_eq!(operations, expected);
        assert!(server.idle());
        answer.send(()).unwrap();
    }
    for (n, (task, sent)) in (1..).zip(tasks) {
        assert_eq!(task.await.unwrap().unwrap(), n * 2);
        assert!(sent.is_marked());
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_at_most_as_many_requests_as_lanes() {
    let server = Server::default();
    let combiner = server.combiner(2, 10);
    let mut tasks = Vec::new();
    for n in 1..=4 {
        tasks.push(start(&combiner, n).await);
    }
    let (first, second) = (server.request().await, server.request().await);
    assert_eq!((first.0, second.0), (vec![1], vec![2]));
    assert!(server.idle());
    second.1.send(()).unwrap();
    let third = server.request().await;
    assert_eq!(third.0, [3, 4]);
    first.1.send(()).unwrap();
    third.1.send(()).unwrap();
    for (task, _) in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_fails_alone() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let mut tasks = Vec::new();
    for n in [1, 2, 100, 3] {
        tasks.push(start(&combiner, n).await.0);
    }
    for _ in 0..2 {
        server.request().await.1.send(()).unwrap();
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap().map_err(|error| error.code()));
    }
    assert_eq!(answers, [Ok(2), Ok(4), Err(ErrorCode::Internal), Ok(6)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_takes_nobody_down() {
    let server = Server::default();
    let combiner = server.combiner(1, 2);
    let mut tasks = Vec::new();
    for n in 1..=5 {
        tasks.push(start(&combiner, n).await);
    }
    // The one that sends, while its own operation is under way.
    let (operations, _answer) = server.request().await;
    assert_eq!(operations, [1]);
    tasks.remove(0).0.abort();
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [2, 3]);
    // One of a batch under way.
    let (two, sent) = tasks.remove(0);
    two.abort();
    assert!(sent.is_marked());
    // One that waits.
    let (four, sent) = tasks.remove(1);
    four.abort();
    assert!(four.await.unwrap_err().is_cancelled());
    assert!(!sent.is_marked());
    answer.send(()).unwrap();
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [5]);
    answer.send(()).unwrap();
    let mut answers = Vec::new();
    for (task, _) in tasks {
        answers.push(task.await.unwrap().unwrap());
    }
    assert_eq!(answers, [6, 10]);
}

#[tokio::test(start_paused = true)]
async fn one_whose_caller_does_not_poll_does_not_block_the_others_for_long() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let sent = Sent::default();
    let mut forgotten = Box::pin(combiner.run(1, &sent));
    assert!(poll_once(forgotten.as_mut()).is_pending());
    server.request().await.1.send(()).unwrap();
    // The answer is there, but the caller does not look.
    let (two, _) = start(&combiner, 2).await;
    advance(SECOND).await;
    let (three, _) = start(&combiner, 3).await;
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [2, 3]);
    answer.send(()).unwrap();
    two.await.unwrap().unwrap();
    three.await.unwrap().unwrap();
    assert_eq!(forgotten.await.unwrap(), 2);
    // The lane that was taken from it is not given back twice.
    let mut tasks = Vec::new();
    for n in 4..=6 {
        tasks.push(start(&combiner, n).await.0);
    }
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [4]);
    assert!(server.idle());
    answer.send(()).unwrap();
    assert_eq!(server.request().await.0, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn operations_wait_together_for_a_connection_and_leave_unmarked() {
    let server = Server::default();
    server.0.far.store(true, Ordering::SeqCst);
    let combiner = server.combiner(1, 10);
    let mut tasks = Vec::new();
    for n in 1..=3 {
        tasks.push(start(&combiner, n).await);
    }
    // Even the first one may leave: the connection is made for those that stay.
    let (one, sent) = tasks.remove(0);
    one.abort();
    advance(SECOND / 2).await;
    assert!(!sent.is_marked() && server.idle());
    sleep(SECOND).await;
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [2, 3]);
    answer.send(()).unwrap();
    for (task, sent) in tasks {
        task.await.unwrap().unwrap();
        assert!(sent.is_marked());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_too_long_to_be_sent_is_dropped() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let (first, _) = start(&combiner, 1).await;
    let (_, answer) = server.request().await;
    let (waits, sent) = start(&combiner, 2).await;
    advance(UNSENT - SECOND).await;
    yield_now().await;
    assert!(!waits.is_finished());
    advance(SECOND).await;
    assert_eq!(waits.await.unwrap().unwrap_err().code(), ErrorCode::RateLimited);
    answer.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 2);
    yield_now().await;
    assert!(server.idle() && !sent.is_marked());
}

#[tokio::test(start_paused = true)]
async fn one_that_others_sent_waits_longer_for_its_answer() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let (_first, _) = start(&combiner, 1).await;
    let (_, answer) = server.request().await;
    let (waits, sent) = start(&combiner, 2).await;
    advance(UNSENT - SECOND).await;
    answer.send(()).unwrap();
    let (_, _answer) = server.request().await;
    assert!(sent.is_marked());
    // The first limit passes.
    advance(SECOND).await;
    yield_now().await;
    advance(UNANSWERED - SECOND).await;
    yield_now().await;
    assert!(!waits.is_finished());
    advance(SECOND).await;
    yield_now().await;
    assert!(waits.is_finished());
    assert_eq!(waits.await.unwrap().unwrap_err().code(), ErrorCode::AcquisitionTimeout);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_if_all_left_before_there_was_a_connection() {
    let server = Server::default();
    server.0.far.store(true, Ordering::SeqCst);
    let combiner = server.combiner(1, 10);
    let sent = Sent::default();
    assert!(timeout(SECOND / 2, combiner.run(1, &sent)).await.is_err());
    sleep(SECOND).await;
    assert!(server.idle() && !sent.is_marked());
    server.0.far.store(false, Ordering::SeqCst);
    server.0.immediate.store(true, Ordering::SeqCst);
    assert_eq!(combiner.run(2, &sent).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_all_that_wait_get_the_error() {
    let server = Server::default();
    server.0.down.store(true, Ordering::SeqCst);
    let combiner = server.combiner(1, 10);
    let mut tasks = Vec::new();
    for n in 1..=3 {
        tasks.push(start(&combiner, n).await);
    }
    for (task, sent) in tasks {
        assert_eq!(task.await.unwrap().unwrap_err().code(), ErrorCode::ServiceUnavailable);
        assert!(!sent.is_marked());
    }
    server.0.down.store(false, Ordering::SeqCst);
    server.0.immediate.store(true, Ordering::SeqCst);
    assert_eq!(combiner.run(4, &Sent::default()).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_later_does_not_get_the_error_of_an_earlier_attempt_to_connect() {
    let server = Server::default();
    server.0.immediate.store(true, Ordering::SeqCst);
    server.0.far.store(true, Ordering::SeqCst);
    server.0.down.store(true, Ordering::SeqCst);
    let combiner = server.combiner(1, 10);
    let (first, _) = start(&combiner, 1).await;
    // The server is back, but the attempt to connect that is under way will not notice.
    sleep(SECOND * 9 / 10).await;
    server.0.down.store(false, Ordering::SeqCst);
    let (later, _) = start(&combiner, 2).await;
    assert_eq!(first.await.unwrap().unwrap_err().code(), ErrorCode::ServiceUnavailable);
    assert_eq!(later.await.unwrap().unwrap(), 4);
}

/// Starts a task that does one operation, and these two when it was answered.
async fn start_three(combiner: &Combiner<Server>, first: u64, then: [u64; 2]) {
    let combiner = combiner.clone();
    Handle::current().spawn(async move {
        combiner.run(first, &Sent::default()).await.unwrap();
        let (one, other) = (Sent::default(), Sent::default());
        tokio::join!(combiner.run(then[0], &one), combiner.run(then[1], &other))
    });
    yield_now().await;
}

/// Uses both lanes, then answers operations of three callers in one request. Each has two more to do.
async fn three_answered_together(server: &Server, combiner: &Combiner<Server>) {
    for n in [1, 2] {
        start(combiner, n).await;
    }
    for n in [3, 4, 5] {
        start_three(combiner, n, [10 * n, 10 * n + 1]).await;
    }
    let (first, second) = (server.request().await, server.request().await);
    drop(first);
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [3, 4, 5]);
    drop((second, answer));
}

#[tokio::test(start_paused = true)]
async fn those_that_were_answered_together_go_out_together_although_lanes_are_free() {
    let server = Server::default();
    let combiner = server.combiner(2, 10);
    three_answered_together(&server, &combiner).await;
    assert_eq!(server.request().await.0, [30, 31, 40, 41, 50, 51]);
}

#[tokio::test(start_paused = true)]
async fn those_that_were_answered_together_go_on_together_with_the_combiner_beside() {
    let (server, other) = (Server::default(), Server::default());
    let combiner = server.combiner(1, 10);
    let beside = combiner.beside(other.clone());
    start(&combiner, 1).await;
    for n in [2, 3, 4] {
        let (combiner, beside) = (combiner.clone(), beside.clone());
        Handle::current().spawn(async move {
            combiner.run(n, &Sent::default()).await.unwrap();
            beside.run(10 * n, &Sent::default()).await
        });
    }
    drop(server.request().await);
    drop(server.request().await);
    assert_eq!(other.request().await.0, [20, 30, 40]);
    // Those that come later are sent at once.
    let sent = Sent::default();
    assert!(poll_once(pin!(beside.beside(server).run(5, &sent))).is_pending());
    assert!(sent.is_marked());
}

#[tokio::test(start_paused = true)]
async fn one_that_was_answered_alone_sends_the_next_one_itself() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    start(&combiner, 1).await;
    let caller = combiner.clone();
    let second = Handle::current().spawn(async move {
        caller.run(2, &Sent::default()).await.unwrap();
        let sent = Sent::default();
        assert!(poll_once(pin!(caller.run(3, &sent))).is_pending());
        sent.is_marked()
    });
    yield_now().await;
    drop(server.request().await);
    drop(server.request().await);
    assert!(second.await.unwrap(), "it waits for the task that sent its first one");
}

#[tokio::test(start_paused = true)]
async fn more_than_one_request_takes_use_other_free_lanes_at_once() {
    let server = Server::default();
    let combiner = server.combiner(2, 3);
    three_answered_together(&server, &combiner).await;
    // None of these is answered.
    let (one, other) = (server.request().await, server.request().await);
    assert_eq!((one.0, other.0), (vec![30, 31, 40], vec![41, 50, 51]));
}

/// A request that takes less is short.
const SHORT: Duration = Duration::from_millis(4);

/// Sends a request that takes this time, and then two at once, while two operations wait. Answers the first of
/// them after the same time, and returns the second.
async fn two_wait_and_a_lane_is_free(
    server: &Server,
    combiner: &Combiner<Server>,
    time: Duration,
) -> oneshot::Sender<()> {
    let (first, _) = start(combiner, 9).await;
    let (_, answer) = server.request().await;
    advance(time).await;
    drop(answer);
    first.await.unwrap().unwrap();
    for n in 1..=4 {
        start(combiner, n).await;
    }
    let (first, second) = (server.request().await, server.request().await);
    assert_eq!((first.0, second.0), (vec![1], vec![2]));
    advance(time).await;
    drop(first.1);
    // The caller and the task that may follow it.
    for _ in 0..3 {
        yield_now().await;
    }
    second.1
}

#[tokio::test(start_paused = true)]
async fn more_callers_than_lanes_wait_for_a_short_request_and_share_the_next_one() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 10, SHORT);
    let second = two_wait_and_a_lane_is_free(&server, &combiner, SHORT / 2).await;
    assert!(server.idle());
    drop(second);
    assert_eq!(server.request().await.0, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_long_request_while_a_lane_is_free() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 10, SHORT);
    let _second = two_wait_and_a_lane_is_free(&server, &combiner, SHORT).await;
    assert_eq!(server.request().await.0, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn operations_that_fill_a_request_do_not_wait_for_a_short_one() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 2, SHORT);
    let _second = two_wait_and_a_lane_is_free(&server, &combiner, SHORT / 2).await;
    assert_eq!(server.request().await.0, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_that_arrives_and_fills_a_request_goes_out_with_those_that_wait() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 3, SHORT);
    let _second = two_wait_and_a_lane_is_free(&server, &combiner, SHORT / 2).await;
    assert!(server.idle());
    start(&combiner, 5).await;
    assert_eq!(server.request().await.0, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_was_answered_does_not_count() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 10, SHORT);
    let (nine, _) = start(&combiner, 9).await;
    drop(server.request().await);
    nine.await.unwrap().unwrap();
    for n in 1..=3 {
        start(&combiner, n).await;
    }
    let (first, _second) = (server.request().await, server.request().await);
    drop(first);
    assert_eq!(server.request().await.0, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_its_connection_is_the_only_one_to_do_so() {
    let server = Server::default();
    server.0.far.store(true, Ordering::SeqCst);
    let combiner = server.combiner_that_waits(4, 10, SHORT);
    let (one, _) = start(&combiner, 1).await;
    sleep(2 * SECOND).await;
    drop(server.request().await);
    one.await.unwrap().unwrap();
    assert_eq!(server.0.connects.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_be_lost_holds_nobody_up_for_long() {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 10, SHORT);
    let _lost = two_wait_and_a_lane_is_free(&server, &combiner, SHORT / 2).await;
    sleep(SECOND / 10).await;
    let (operations, answer) = server.request().await;
    assert_eq!(operations, [3, 4]);
    drop(answer);
    // Those that come later do not wait for it at all, although there are more callers than lanes.
    let beside = combiner.beside(Server::default());
    for n in 5..=7 {
        start(&beside, n).await;
    }
    start(&combiner, 8).await;
    assert_eq!(server.request().await.0, [8]);
}

/// A runtime that is not driven any more when a task on it has answered two operations together.
fn runtime_after_an_answer(server: &Server, combiner: &Combiner<Server>) -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        start(combiner, 1).await;
        let (second, third) = (start(combiner, 2).await, start(combiner, 3).await);
        drop(server.request().await);
        drop(server.request().await);
        assert_eq!(second.0.await.unwrap().unwrap(), 4);
        assert_eq!(third.0.await.unwrap().unwrap(), 6);
    });
    runtime
}

#[test]
fn a_runtime_that_ends_after_an_answer_leaves_nobody_behind_who_counted_on_it() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let ends = runtime_after_an_answer(&server, &combiner);
    server.0.immediate.store(true, Ordering::SeqCst);
    let (later, _) = other.block_on(start(&combiner, 3));
    drop(ends);
    let later = other.block_on(async { timeout(30 * SECOND, later).await });
    // If this thread was slow to start it, it counted on nobody.
    match later.expect("it waits for a task that is gone").unwrap() {
        Ok(answer) => assert_eq!(answer, 6),
        Err(error) => assert_eq!(error.code(), ErrorCode::NetworkTimeout),
    }
}

#[test]
fn a_runtime_that_is_not_driven_after_an_answer_blocks_nobody_for_long() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let left = runtime_after_an_answer(&server, &combiner);
    server.0.immediate.store(true, Ordering::SeqCst);
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let sent = Sent::default();
    other.block_on(async {
        // Until then, others count on the task that has answered.
        sleep(SECOND / 50).await;
        let later = timeout(30 * SECOND, combiner.run(3, &sent)).await;
        assert_eq!(later.expect("it waits for a task that nobody drives").unwrap(), 6);
    });
    drop(left);
}

/// Starts an operation that waits, or is sent, when this returns. Its answer is followed by `then`.
fn begin(
    runtime: &Runtime,
    combiner: &Combiner<Server>,
    n: u64,
    then: impl FnOnce() + Send + 'static,
) -> JoinHandle<Result<u64>> {
    let (combiner, (begun, wait)) = (combiner.clone(), mpsc::channel());
    let task = runtime.spawn(async move {
        let sent = Sent::default();
        let mut run = pin!(combiner.run(n, &sent));
        assert!(poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await.is_pending());
        begun.send(()).unwrap();
        let answer = run.await;
        then();
        answer
    });
    wait.recv_timeout(10 * SECOND).unwrap();
    task
}

/// Blocks its worker until the sender is gone.
fn block() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
    let (unblock, blocked) = mpsc::channel();
    let wait = move || assert!(blocked.recv_timeout(30 * SECOND).is_err());
    (unblock, wait)
}

fn three_workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap()
}

#[test]
fn a_caller_that_blocks_its_worker_after_its_answer_holds_nobody_up() {
    let (server, runtime) = (Server::default(), three_workers());
    let combiner = server.combiner(1, 10);
    let (_unblock, block) = block();
    begin(&runtime, &combiner, 1, block);
    begin(&runtime, &combiner, 2, || ());
    runtime.block_on(async {
        drop(server.request().await);
        assert_eq!(server.request().await.0, [2]);
    });
}

#[test]
fn callers_that_block_their_workers_after_a_common_answer_hold_nobody_up() {
    let (server, runtime) = (Server::default(), three_workers());
    let combiner = server.combiner(1, 10);
    let ((_unblock, one), (_unblock_other, other)) = (block(), block());
    begin(&runtime, &combiner, 1, || ());
    begin(&runtime, &combiner, 2, one);
    begin(&runtime, &combiner, 3, other);
    runtime.block_on(async {
        drop(server.request().await);
        let (operations, request) = server.request().await;
        assert_eq!(operations, [2, 3]);
        begin(&runtime, &combiner, 4, || ());
        drop(request);
        assert_eq!(server.request().await.0, [4]);
    });
}

#[test]
fn a_runtime_that_ends_right_after_an_answer_blocks_nobody() {
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let runtime = runtime_after_an_answer(&server, &combiner);
    drop(runtime);
    server.0.immediate.store(true, Ordering::SeqCst);
    let other = Builder::new_current_thread().enable_all().build().unwrap();
    let sent = Sent::default();
    let later = other.block_on(async { timeout(30 * SECOND, combiner.run(3, &sent)).await });
    assert_eq!(later.expect("it waits for a task that is gone").unwrap(), 6);
}

#[test]
fn a_runtime_that_ends_takes_down_only_what_relies_on_it() {
    let runtime =
        || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (server, first, second) = (Server::default(), runtime(), runtime());
    let combiner = server.combiner(1, 10);
    let two = first.block_on(async {
        let one = start(&combiner, 1).await;
        let two = start(&combiner, 2).await;
        server.request().await.1.send(()).unwrap();
        assert_eq!(one.0.await.unwrap().unwrap(), 2);
        // Request 2 is under way in a task of this runtime.
        assert_eq!(server.0.requests.lock().unwrap()[0].0, [2]);
        two
    });
    assert!(two.1.is_marked());
    let sent = Sent::default();
    let mut of_first = pin!(combiner.run(3, &sent));
    first.block_on(async { assert!(poll_once(of_first.as_mut()).is_pending()) });
    let (of_second, _) = second.block_on(start(&combiner, 4));
    server.0.immediate.store(true, Ordering::SeqCst);
    drop(first);
    second.block_on(async {
        assert_eq!(of_first.await.unwrap_err().code(), ErrorCode::NetworkTimeout);
        assert_eq!(of_second.await.unwrap().unwrap(), 8);
        assert_eq!(combiner.run(5, &Sent::default()).await.unwrap(), 10);
    });
}

/// Asserts that an operation is answered, although nobody drives another runtime.
fn assert_answered(runtime: &Runtime, waiting: JoinHandle<Result<u64>>, answer: u64) {
    // It would time out if it waited for a runtime that nobody drives.
    let answered = runtime.block_on(async { timeout(30 * SECOND, waiting).await });
    assert_eq!(answered.unwrap().unwrap().unwrap(), answer);
}

#[test]
fn a_runtime_that_is_not_driven_after_the_answer_of_one_holds_up_no_other() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (server, left, other) = (Server::default(), runtime(), runtime());
    let combiner = server.combiner(1, 10);
    let sent = Sent::default();
    let mut first = pin!(combiner.run(1, &sent));
    left.block_on(async { assert!(poll_once(first.as_mut()).is_pending()) });
    let (waiting, _) = other.block_on(start(&combiner, 2));
    other.block_on(async { drop(server.request().await) });
    server.0.immediate.store(true, Ordering::SeqCst);
    assert_eq!(left.block_on(first).unwrap(), 2);
    assert_answered(&other, waiting, 4);
    drop(left);
}

#[test]
fn a_runtime_that_is_not_driven_gets_one_lane_at_most() {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let (server, left, other) = (Server::default(), runtime(), runtime());
    let combiner = server.combiner(2, 10);
    other.block_on(async {
        start(&combiner, 1).await;
        start(&combiner, 2).await;
    });
    left.block_on(start(&combiner, 3));
    let (waiting, _) = other.block_on(start(&combiner, 4));
    server.0.immediate.store(true, Ordering::SeqCst);
    other.block_on(async {
        drop(server.request().await);
        drop(server.request().await);
    });
    assert_answered(&other, waiting, 8);
    drop(left);
}

#[test]
fn the_lane_of_a_task_that_nobody_drives_is_used_by_others() {
    let server = Server::default();
    let left = Builder::new_current_thread().enable_time().build().unwrap();
    let other = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let combiner = server.combiner(1, 10);
    let sents = [Sent::default(), Sent::default()];
    let mut first = pin!(combiner.run(1, &sents[0]));
    let mut second = pin!(combiner.run(2, &sents[1]));
    left.block_on(async {
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
    });
    other.block_on(async { drop(server.request().await) });
    assert_eq!(left.block_on(first).unwrap(), 2);
    server.0.immediate.store(true, Ordering::SeqCst);
    let (waiting, _) = other.block_on(start(&combiner, 4));
    other.block_on(async {
        advance(60 * SECOND).await;
        let later = timeout(30 * SECOND, combiner.run(3, &Sent::default())).await;
        assert_eq!(later.expect("it waits for a lane that nobody uses").unwrap(), 6);
    });
    // The next task runs where somebody drives it, and sends all that waits.
    assert_answered(&other, waiting, 8);
    assert!(sents[1].is_marked());
    assert_eq!(left.block_on(second).unwrap(), 4);
}

#[test]
fn a_runtime_that_is_not_driven_after_a_common_answer_holds_up_no_other() {
    let mut current_thread = Builder::new_current_thread();
    let other = current_thread.enable_all().build().unwrap();
    // It runs one task, then looks at what it blocks on.
    let left = current_thread.event_interval(1).build().unwrap();
    let server = Server::default();
    let combiner = server.combiner(1, 10);
    let [mut first, mut second, mut third] = [1, 2, 3].map(|n| {
        let combiner = combiner.clone();
        Box::pin(async move { combiner.run(n, &Sent::default()).await })
    });
    left.block_on(async {
        for run in [&mut first, &mut second, &mut third] {
            assert!(poll_once(run.as_mut()).is_pending());
        }
        drop(server.request().await);
        assert_eq!(first.await.unwrap(), 2);
        while server.idle() {
            yield_now().await;
        }
    });
    let (waiting, _) = other.block_on(start(&combiner, 4));
    server.0.immediate.store(true, Ordering::SeqCst);
    left.block_on(async {
        drop(server.request().await);
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (4, 6));
    });
    assert_answered(&other, waiting, 8);
    drop(left);
}

/// Callers leave at random await points. Nothing is left behind, and those that stay are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_random_drops_leave_nothing_behind() {
    drop_at_random(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_random_drops_leave_nothing_behind_if_requests_are_short() {
    drop_at_random(SECOND).await;
}

async fn drop_at_random(short_request: Duration) {
    let server = Server::default();
    let combiner = server.combiner_that_waits(2, 7, short_request);
    let answering = server.clone();
    let answers = Handle::current().spawn(async move {
        loop {
            let (_, answer) = answering.request().await;
            let _ = answer.send(());
        }
    });
    let workers: Vec<_> = (0..20)
        .map(|worker| {
            let combiner = combiner.clone();
            let work = async move {
                for n in 0..500 {
                    let n = worker * 100_000 + n * 100 + 1;
                    let sent = Sent::default();
                    let polls = fastrand::usize(0..6);
                    let mut run = Box::pin(combiner.run(n, &sent));
                    for _ in 0..polls {
                        if let Poll::Ready(answer) = poll_once(run.as_mut()) {
                            assert_eq!(answer.unwrap(), n * 2);
                            break;
                        }
                        yield_now().await;
                    }
                    drop(run);
                    if fastrand::u8(0..4) == 0 {
                        assert_eq!(combiner.run(n, &sent).await.unwrap(), n * 2);
                    }
                }
            };
            Handle::current().spawn(work)
        })
        .collect();
    for worker in workers {
        timeout(30 * SECOND, worker).await.expect("a caller waits for ever").unwrap();
    }
    let none_left = async {
        while server.0.connections.load(Ordering::SeqCst) > 0 {
            yield_now().await;
        }
    };
    timeout(30 * SECOND, none_left).await.expect("a connection is left");
    assert!(server.0.most_connections.load(Ordering::SeqCst) <= 2);
    answers.abort();
    assert!(answers.await.is_err());
    // The last tasks that gather send what comes now together.
    sleep(SECOND / 50).await;
    // No lane was lost: two operations are under way at a time.
    let _two = [start(&combiner, 1).await, start(&combiner, 2).await];
    assert_eq!(server.request().await.0.len() + server.request().await.0.len(), 2);
}

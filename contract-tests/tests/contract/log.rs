//! Collects what a backend logs on one thread, for trials that check it.

#![allow(clippy::unwrap_used, reason = "a trial may panic")]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// The events of one crate: the level and the fields of each.
#[derive(Clone)]
pub(crate) struct Log {
    target: &'static str,
    events: Arc<Mutex<Vec<(Level, String)>>>,
}

/// Collects events until it is dropped.
#[expect(dead_code, reason = "the fields act when they are dropped")]
struct Collecting(DefaultGuard, Dispatch);

/// Runs a trial and all its tasks on a thread of their own. The trial gets a log of what the crate
/// named `target` logs on that thread.
pub(crate) async fn logging<F>(
    target: &'static str,
    trial: impl FnOnce(Log) -> F + Send + 'static,
) -> F::Output
where
    F: Future<Output: Send + 'static>,
{
    let thread = spawn_blocking(move || {
        let log = Log { target, events: Arc::default() };
        let _collecting = log.collect();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(trial(log))
    });
    thread.await.unwrap()
}

/// Cuts the listening connection four times in a row, and returns the one warning about it.
///
/// `cut_and_wait` cuts the connection and waits until notifications arrive again. The warning is
/// due after the second cut, because a single session that ends early is normal.
pub(crate) async fn warning_of_early_ends<E>(
    log: &Log,
    mut cut_and_wait: impl AsyncFnMut() -> Result<(), E>,
) -> Result<String, E> {
    let start = Instant::now();
    for cut in 1..=4 {
        assert_eq!(log.warnings().len(), usize::from(cut > 2), "before cut {cut}");
        cut_and_wait().await?;
    }
    // The pauses are at least half of 100, 200, 400 and 800 ms.
    assert!(start.elapsed() >= Duration::from_millis(750), "{:?}", start.elapsed());
    let mut warnings = log.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    Ok(warnings.remove(0))
}

impl Log {
    /// Collects what this thread logs.
    ///
    /// If there is only one subscriber, `tracing` disables an event for all threads when a thread
    /// without a subscriber is the first to emit it. A second subscriber prevents that.
    fn collect(&self) -> Collecting {
        let other = Dispatch::new(Self { target: self.target, events: Arc::default() });
        Collecting(set_default(self.clone()), other)
    }

    pub(crate) fn events(&self) -> Vec<(Level, String)> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self.events().into_iter().filter(|(level, _)| *level == Level::WARN);
        warnings.map(|(_, text)| text).collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && metadata.target().starts_with(self.target)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| {
            write!(text, "{field}={value:?} ").unwrap();
        });
        self.events.lock().unwrap().push((*event.metadata().level(), text));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

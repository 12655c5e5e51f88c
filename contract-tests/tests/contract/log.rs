//! What a backend logs on one thread, for trials that look at it.

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

/// The events of one crate: for each its level, and its fields after that.
#[derive(Clone)]
pub(crate) struct Log {
    of: &'static str,
    events: Arc<Mutex<Vec<(Level, String)>>>,
}

/// Events are collected until this is dropped.
#[expect(dead_code, reason = "it is there to be dropped")]
struct Collecting(DefaultGuard, Dispatch);

/// Runs a trial and all its tasks on a thread of their own, with what the crate of this name logs there.
pub(crate) async fn logging<F>(
    of: &'static str,
    trial: impl FnOnce(Log) -> F + Send + 'static,
) -> F::Output
where
    F: Future<Output: Send + 'static>,
{
    let thread = spawn_blocking(move || {
        let log = Log { of, events: Arc::default() };
        let _collecting = log.collect();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(trial(log))
    });
    thread.await.unwrap()
}

/// Ends what hears of releases four times, early each time, by `cut_and_wait`, which waits until it
/// hears again. That is an outage from the second time on, and the warning of it is returned.
pub(crate) async fn warning_of_early_ends<E>(
    log: &Log,
    mut cut_and_wait: impl AsyncFnMut() -> Result<(), E>,
) -> Result<String, E> {
    let begun = Instant::now();
    for cut in 1..=4 {
        assert_eq!(log.warnings().len(), usize::from(cut > 2), "before cut {cut}");
        cut_and_wait().await?;
    }
    // At least half of 100, 200, 400 and 800 ms.
    assert!(begun.elapsed() >= Duration::from_millis(750), "{:?}", begun.elapsed());
    let mut warnings = log.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    Ok(warnings.remove(0))
}

impl Log {
    /// Collects what this thread logs.
    ///
    /// An event that `tracing` first meets on a thread without a subscriber is switched off for all,
    /// if there is only one subscriber then: so there is another one.
    fn collect(&self) -> Collecting {
        let other = Dispatch::new(Self { of: self.of, events: Arc::default() });
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
        metadata.is_event() && metadata.target().starts_with(self.of)
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

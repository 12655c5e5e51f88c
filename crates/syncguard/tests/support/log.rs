//! What the runtime logs on the thread of a test: its events, and the fields of its spans.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// The log of one thread. Clones share it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    events: Vec<(Level, String)>,
    /// The name of each span, and its fields in the order in which they were recorded.
    spans: HashMap<u64, (&'static str, String)>,
}

/// The log is written until this is dropped.
pub struct Logging {
    _default: DefaultGuard,
    _second: Dispatch,
}

impl Log {
    /// Logs what happens on this thread.
    ///
    /// If there is only one subscriber, `tracing` asks it for each event whether it wants it, and
    /// remembers the answer for all threads. So there is a second one.
    pub fn of_this_thread() -> (Self, Logging) {
        let log = Self::default();
        let second = Dispatch::new(Self::default());
        (log.clone(), Logging { _default: set_default(log), _second: second })
    }

    /// The warnings that contain this text.
    pub fn warnings(&self, text: &str) -> Vec<String> {
        self.at(Level::WARN, text)
    }

    /// The lines of this level that contain this text.
    pub fn at(&self, level: Level, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let of_level = lines.events.iter().filter(|(of, _)| *of == level);
        let lines = of_level.map(|(_, line)| line.clone());
        lines.filter(|line| line.contains(text)).collect()
    }

    /// The fields of all spans of this name.
    pub fn spans(&self, name: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let named = lines.spans.values().filter(|(of, _)| *of == name);
        named.map(|(_, fields)| fields.clone()).collect()
    }
}

fn write_to(text: &mut String) -> impl FnMut(&Field, &dyn Debug) {
    |field, value| write!(text, "{field}={value:?} ").unwrap()
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("syncguard")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut write_to(&mut text));
        self.0.lock().unwrap().events.push((*event.metadata().level(), text));
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = String::new();
        attributes.record(&mut write_to(&mut text));
        let spans = &mut self.0.lock().unwrap().spans;
        let id = u64::try_from(spans.len()).unwrap() + 1;
        spans.insert(id, (attributes.metadata().name(), text));
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut text = String::new();
        values.record(&mut write_to(&mut text));
        if let Some((_, fields)) = self.0.lock().unwrap().spans.get_mut(&id.into_u64()) {
            fields.push_str(&text);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

//! The file to which a process writes its history, one line per event.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock::Moment;
use crate::event::{Entry, Event};

/// Writes a history. Clones write to the same file.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<File>);

impl History {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    /// Writes an event that happens now.
    pub(crate) fn note(&self, event: Event) {
        self.note_at(Moment::now(), event);
    }

    /// Writes an event that happened at `at`. It is in the file when this returns: a line is one
    /// write, so it survives the process.
    pub(crate) fn note_at(&self, at: Moment, event: Event) {
        // A history with a hole could hide a violation.
        let written = serde_json::to_vec(&Entry { at, event }).map_err(io::Error::other);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            (&*self.0).write_all(&line)
        });
        if let Err(error) = written {
            eprintln!("chaos: the history cannot be written: {error}");
            std::process::abort();
        }
    }

    /// Starts a thread that notes when the machine does not run this process. It is outside the
    /// runtime, so a task that blocks the runtime is not taken for that.
    pub(crate) fn note_stalls(&self) -> io::Result<()> {
        let history = self.clone();
        let pulse = move || {
            let mut last = Moment::now();
            loop {
                thread::sleep(PULSE);
                let now = Moment::now();
                let stalled = now.since(last).saturating_sub(PULSE);
                if stalled > SHORTEST_STALL {
                    history.note_at(now, Event::stalled(stalled));
                }
                last = now;
            }
        };
        thread::Builder::new().name("pulse".to_owned()).spawn(pulse).map(drop)
    }
}

const PULSE: Duration = Duration::from_millis(10);
/// A busy machine delays each thread a little.
const SHORTEST_STALL: Duration = Duration::from_millis(10);

/// Reads a history. A last line without its end is left out: the process was killed.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            entries.push(serde_json::from_slice(&line)?);
        }
        line.clear();
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let history = History::create(&path).unwrap();
        history.note_at(Moment(7), Event::Lost { hold: 1 });
        history.note_at(Moment(9), Event::stalled(Duration::from_millis(1)));
        (&*history.0).write_all(b"{\"at\":12,\"ev").unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].at, Moment(9));
        assert!(matches!(entries[1].event, Event::Stalled { micros: 1000 }));
    }
}
